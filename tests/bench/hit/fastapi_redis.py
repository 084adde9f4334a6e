"""FastAPI on uvicorn with redis-py; runs in a separate environment (requirements/bench.txt).

`/tasks` costs one GET. With `locked` as third argument, each address is a separate page; a missing one is fetched by
the request that gets redis-py's lock, while the others wait.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import redis.asyncio
import uvicorn
from fastapi import FastAPI, Query, Request, Response

UPSTREAM_S = 0.02
is_locked = sys.argv[3:] == ["locked"]
client = redis.asyncio.Redis(port=int(sys.argv[2]))


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    await client.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/tasks")
async def tasks(
    request: Request,
    app: str,
    since: str | None = None,
    until: str | None = None,
    sort: str = "-scheduled_at",
    q: str | None = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """Return the bytes in Redis."""
    key = f"fastapi:{request.url.query}" if is_locked else "page"
    page = await client.get(key)
    if page is None:
        async with client.lock(f"{key}:lock", timeout=5, sleep=0.005):
            page = await client.get(key) or await fetch(key)
    return Response(page, media_type="application/json")


async def fetch(key: str) -> bytes:
    """Fetch a page from an upstream that answers after 20 ms and takes no CPU time."""
    await asyncio.sleep(UPSTREAM_S)
    page: bytes = await client.get("page")
    await client.set(key, page, ex=3600)
    return page


uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="error")
