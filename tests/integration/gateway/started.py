"""Whole gateways in this process, called over ASGI by their one caller: one app, at a sandbox with short windows."""

from contextlib import AsyncExitStack

import httpx

from service.app import create_app
from service.sandbox.serving import Sandbox
from service.settings import AppSettings, BudgetSettings, CacheSettings, CallerSettings, RedisSettings, Settings
from tests.lifespan import lifespan
from tests.servers import Server
from tests.settings import hashed


async def started(
    stack: AsyncExitStack,
    server: Server,
    sandbox: Sandbox,
    *,
    budget: BudgetSettings,
    cache: CacheSettings,
    operator: bool = False,
) -> httpx.AsyncClient:
    """Start a gateway that ends with the stack, and return a client with its caller's key."""
    app = sandbox.app
    key = hashed("reports")
    settings = Settings(
        apps={
            "shop": AppSettings(sdkappid=app.sdkappid, admin=app.admin, base_url=sandbox.base_url, secret_env="SECRET")
        },
        callers={"reports": CallerSettings(keys=(key,), apps=("shop",), operator=operator)},
        redis=RedisSettings(url=server.url, timeout_s=5.0),
        budget=budget,
        cache=cache,
    )
    service = create_app(settings, environ={"SECRET": app.key})
    await stack.enter_async_context(lifespan(service.asgi))
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=service.asgi),
        base_url="http://gateway",
        headers={"Authorization": "Bearer reports"},
        timeout=30,
    )
    return await stack.enter_async_context(client)
