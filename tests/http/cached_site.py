"""A site behind a response cache, with a clock that is set by hand."""

import math
from typing import Any

import httpx
import msgspec

from service.model.callers import Authenticated
from service.observe.request import RequestRecord
from service.web.response_cache import ResponseCache
from tests.http.fake_gateway import NOW_S
from tests.http.site import AUTH, Web, key_callers


class CachedSite:
    """The HTTP side behind a response cache, with a clock that is set by hand."""

    def __init__(self, web: Web, *, max_bytes: int = 100_000, way: str = "called") -> None:
        self.web = web
        self.now_s = NOW_S
        self.wall_ahead_s = 0.0
        self.until_s = math.inf
        self.observed: list[RequestRecord] = []
        self.cache = ResponseCache(
            web.app,
            authenticate_cached=self.authenticate_cached,
            observers=[self.observed.append],
            clock=lambda: self.now_s,
            wall=lambda: self.now_s + self.wall_ahead_s,
            max_bytes=max_bytes,
        )
        self.heads: list[bytes] = []
        self.repeats_heads = way == "repeated"
        app = self.cache if way == "called" else self.as_the_server_does
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway")

    async def as_the_server_does(self, scope: Any, receive: Any, send: Any) -> None:
        """Look up a response without a task, and call the app only if there is none."""
        head = repr([scope[name] for name in ("method", "path", "query_string", "headers")]).encode()
        self.heads.append(head)
        answer = self.cache.lookup_head(head, scope["client"]) if self.repeats_heads else None
        if answer is None:
            answer = self.cache.lookup(scope, head)
        if answer is None:
            await self.cache.call_app(scope, receive, send)
            return
        status_line, *lines = answer.lines.split(b"\r\n")
        headers = [tuple(line.split(b": ", 1)) for line in lines]
        await send({"type": "http.response.start", "status": int(status_line.split()[1]), "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def authenticate_cached(self, authorization: bytes | None) -> Authenticated | None:
        """Return the known caller, for as long as the test allows."""
        known: Authenticated | None = key_callers().authenticate_cached(authorization)
        return None if known is None else msgspec.structs.replace(known, until_s=self.until_s)

    async def get(self, path: str = "/tasks", headers: dict[str, str] | None = None) -> httpx.Response:
        """GET with the key of the caller who may read one app."""
        return await self.client.get(path, headers=AUTH | (headers or {}))

    async def cached(self, path: str = "/tasks", headers: dict[str, str] | None = None) -> httpx.Response:
        """GET twice, so that the second response is cached; count calls of the gateway from here on."""
        await self.get(path, headers)
        answer = await self.get(path, headers)
        self.web.gateway.requests.clear()
        return answer

    @property
    def asked(self) -> int:
        """Return how often the gateway was called, since `cached` if that was used."""
        return len(self.web.gateway.requests)
