"""Applications to compare a hit with, on the gateway's own server and event loop. Run with KIND, PORT and
REDIS_PORT."""

import sys
from typing import Any

import redis.asyncio
from litestar import Litestar, Response, get
from litestar.params import FromQuery

from service.server.lifecycle import serve
from service.settings import ServerSettings

KEY = "page"
BODY = b'{"tasks":["' + b"x" * 6200 + b'"]}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Respond to every request with these bytes."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": BODY})


def litestar() -> Any:
    """A handler with the parameters of `GET /tasks`, that returns the bytes."""

    @get("/tasks")
    async def tasks(
        app: FromQuery[str],
        since: FromQuery[str | None] = None,
        until: FromQuery[str | None] = None,
        sort: FromQuery[str] = "-scheduled_at",
        q: FromQuery[str | None] = None,
        offset: FromQuery[int] = 0,
        limit: FromQuery[int] = 20,
    ) -> Response[bytes]:
        return Response(BODY, media_type="application/json")

    return Litestar([tasks], openapi_config=None)


def litestar_redis(redis_port: int) -> Any:
    """The same, with one redis-py GET for each request."""
    client = redis.asyncio.Redis(port=redis_port)

    @get("/tasks")
    async def tasks(
        app: FromQuery[str],
        since: FromQuery[str | None] = None,
        until: FromQuery[str | None] = None,
        sort: FromQuery[str] = "-scheduled_at",
        q: FromQuery[str | None] = None,
        offset: FromQuery[int] = 0,
        limit: FromQuery[int] = 20,
    ) -> Response[bytes]:
        return Response(await client.get(KEY), media_type="application/json")

    return Litestar([tasks], openapi_config=None)


def main() -> None:
    """Serve one of them, as the gateway is served."""
    kind, port, redis_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    app = {"bare": lambda: bare, "litestar": litestar, "litestar-redis": lambda: litestar_redis(redis_port)}[kind]()
    serve(app, ServerSettings(port=port, log_level="error"))


if __name__ == "__main__":
    main()
