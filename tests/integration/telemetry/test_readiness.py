"""`/livez` and `/readyz` over the life of a gateway."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from service.app import Service, create_app
from service.sandbox.serving import Sandbox
from service.sandbox.upstream import APPS
from service.settings import AppSettings, CallerSettings, RedisSettings, ServerSettings, Settings, TelemetrySettings
from tests.integration.telemetry.scraping import scraped
from tests.lifespan import lifespan
from tests.ports import free_port
from tests.servers import Server
from tests.settings import hashed

APP = APPS[0]


async def states(service: Service) -> tuple[int, int, dict[str, Any]]:
    """The status of /livez and /readyz, and what the latter says."""
    transport = httpx.ASGITransport(app=service.asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        live, ready = await client.get("/livez"), await client.get("/readyz")
    return live.status_code, ready.status_code, ready.json()


async def test_ready_from_start_to_leave(own_valkey: Server, sandbox: Sandbox, tmp_path: Path) -> None:
    """Ready neither before the start nor after `begin_drain`, but while Redis is unavailable; alive throughout."""
    secret = tmp_path / "secret"
    secret.write_text(APP.key)
    app = AppSettings(sdkappid=APP.sdkappid, admin=APP.admin, base_url=sandbox.base_url, secret_file=str(secret))
    caller = CallerSettings(keys=(hashed("key"),), apps=("shop",))
    metrics_port = free_port()
    settings = Settings(
        apps={"shop": app},
        callers={"c": caller},
        redis=RedisSettings(url=own_valkey.url, timeout_s=5.0),
        server=ServerSettings(),
        telemetry=TelemetrySettings(metrics_port=metrics_port),
    )
    service = create_app(settings)
    assert (await states(service))[:2] == (200, 503)
    async with lifespan(service.asgi):
        live, ready, said = await states(service)
        assert (live, ready) == (200, 200)
        assert said == {"ready": True, "redis": "ok", "apps_ok": 1, "apps_total": 1}
        own_valkey.kill()
        transport = httpx.ASGITransport(app=service.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            fields = {"Authorization": "Bearer key", "Prefer": "wait=0.2"}
            assert (await client.get("/tasks?app=shop", headers=fields)).status_code == 503
        live, ready, said = await states(service)
        assert (live, ready, said["redis"]) == (200, 200, "away")
        own_valkey.start()
        async with asyncio.timeout(20):  # without any request
            while (await states(service))[2]["redis"] == "away":
                await asyncio.sleep(0.02)
        service.begin_drain()
        live, ready, said = await states(service)
        assert (live, ready, said["ready"]) == (200, 503, False)
        assert (await scraped(metrics_port)).sum("taskgate_ready") == 0
    assert (await states(service))[:2] == (200, 503)


async def test_without_a_port_nothing_is_counted(valkey: Server, sandbox: Sandbox, tmp_path: Path) -> None:
    """By default no port is opened and no observer but the access log is called."""
    secret = tmp_path / "secret"
    secret.write_text(APP.key)
    app = AppSettings(sdkappid=APP.sdkappid, admin=APP.admin, base_url=sandbox.base_url, secret_file=str(secret))
    service = create_app(Settings(apps={"shop": app}, callers={}, redis=RedisSettings(url=valkey.url, timeout_s=5.0)))
    before = asyncio.all_tasks()
    async with lifespan(service.asgi):
        assert not [task for task in asyncio.all_tasks() - before if task.get_name() == "loop-lag"]
