"""The demo behind `make run`: an embedded Valkey, the sandbox upstream and a gateway, started and stopped together."""

import asyncio
import contextlib
import hashlib
import os
import socket
import sys
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TextIO

import msgspec
import yaml

from service.sandbox.children import Child, start_child
from service.sandbox.errors import NotStarted, PortTaken, SandboxError
from service.sandbox.serving import Sandbox, sandbox_upstream, stop_signals
from service.sandbox.upstream import SandboxOptions
from service.sandbox.valkey import Valkey, valkey
from service.settings import RedisSettings

CALLER = "demo"
KEY = "sandbox"  # opens only a gateway that listens on this machine alone, to tasks that don't exist
GATEWAY = (sys.executable, "-m", "service", "serve")


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where the demo's gateway listens, how it is started, and its start and stop timeouts in seconds."""

    host: str = "127.0.0.1"
    port: int = 8000
    sandbox: SandboxOptions = SandboxOptions()
    gateway: tuple[str, ...] = GATEWAY
    ready_within_s: float = 30.0
    end_within_s: float = 5.0

    @property
    def url(self) -> str:
        """The address of the gateway."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


def run_demo(
    *, host: str = "127.0.0.1", port: int = 8000, seed: int = 1, tasks: int = 2000, out: TextIO | None = None
) -> int:
    """Run the demo until Ctrl-C or SIGTERM. Return 0 then, 1 if a part failed, 2 if the port is in use."""
    options = DemoOptions(host=host, port=port, sandbox=SandboxOptions(seed=seed, tasks=tasks))
    return asyncio.run(demo(options, out=out))


async def demo(options: DemoOptions, *, out: TextIO | None = None) -> int:
    """Start all parts, print what runs, and wait for the end. Leave no process, socket or directory behind."""
    stop = stop_signals()
    try:
        _check_free(options.host, options.port)
        async with AsyncExitStack() as parts:
            await _run(options, parts, stop, out=out or sys.stdout)
    except PortTaken as exc:
        print(f"taskgate demo: {exc}. Choose another one with --port (make run: PORT=8001).", file=sys.stderr)
        return 2
    except SandboxError as exc:
        print(f"taskgate demo: {exc}", file=sys.stderr)
        return 1
    return 0


async def _run(options: DemoOptions, parts: AsyncExitStack, stop: asyncio.Event, *, out: TextIO) -> None:
    """Start the parts and wait until `stop`. Raise NotStarted or SandboxError if one ends before that.

    The gateway's imports take by far the longest, so it starts while Valkey does; it is ready when both are.
    """
    store = await parts.enter_async_context(valkey())
    sandbox = await parts.enter_async_context(sandbox_upstream(options.sandbox))
    configuration = write_configuration(store.directory, options=options, sandbox=sandbox, store=store)
    gateway = await start_child(
        options.gateway,
        grace_s=options.end_within_s,
        environment={"TASKGATE_CONFIG": str(configuration)},
    )
    parts.push_async_callback(gateway.end)
    from service.sandbox.new_budgets import open_budgets  # imported while the gateway and Valkey start

    await store.ready()
    await open_budgets(RedisSettings(url=store.url, timeout_s=5.0), options.sandbox)
    await _wait_for(_gateway_is_ready(options), stop, gateway=gateway, store=store)
    if not stop.is_set():
        print(demo_text(options, sandbox=sandbox, store=store), file=out, flush=True)
        await _wait_for(stop.wait(), stop, gateway=gateway, store=store)


async def _wait_for(
    awaited: Coroutine[None, None, object], stop: asyncio.Event, *, gateway: Child, store: Valkey
) -> None:
    """Wait for `awaited` or `stop`, whichever comes first. Raise SandboxError if a part ends meanwhile."""
    work, stopped = asyncio.ensure_future(awaited), asyncio.ensure_future(stop.wait())
    gateway_ended, store_ended = asyncio.ensure_future(gateway.wait()), asyncio.ensure_future(store.ended())
    watched = (work, stopped, gateway_ended, store_ended)
    try:
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            return
        for name, ended in (("the gateway", gateway_ended), ("the embedded Valkey", store_ended)):
            if ended.done():
                raise SandboxError(f"{name} has ended with status {ended.result()}; the rest was ended too")
        work.result()
    finally:
        for future in watched:
            future.cancel()
        await asyncio.gather(*watched, return_exceptions=True)


async def _gateway_is_ready(options: DemoOptions) -> None:
    """Wait until the gateway reports that it is ready. Raise NotStarted."""
    loop = asyncio.get_running_loop()
    until = loop.time() + options.ready_within_s
    while loop.time() < until:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                if (await _status_line(options)).split(b" ")[1:2] == [b"200"]:
                    return
        await asyncio.sleep(0.02)
    raise NotStarted(f"the gateway was not ready within {options.ready_within_s:g} s")


async def _status_line(options: DemoOptions) -> bytes:
    reader, writer = await asyncio.open_connection(options.host, options.port)
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")
        return await reader.readline()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _check_free(host: str, port: int) -> None:
    """Raise PortTaken if the port can't be listened on now."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        raise PortTaken(host=host, port=port, reason=exc.strerror or str(exc)) from exc


def write_configuration(directory: Path, *, options: DemoOptions, sandbox: Sandbox, store: Valkey) -> Path:
    """Write the gateway's configuration and the apps' secrets into the private directory; return its path."""
    apps: dict[str, object] = {}
    for app in sandbox.upstream.options.apps:
        secret = directory / f"{app.name}.secret"
        _write_private(secret, app.key)
        apps[app.name] = {
            "sdkappid": app.sdkappid,
            "admin": app.admin,
            "base_url": sandbox.base_url,
            "secret_file": str(secret),
        }
    settings = {
        "apps": apps,
        "callers": {CALLER: {"keys": [hashlib.sha256(KEY.encode()).hexdigest()], "apps": list(apps)}},
        "redis": {"url": store.url},
        "budget": {
            "calls": options.sandbox.calls,
            "window_s": options.sandbox.window_s,
            "get_calls": options.sandbox.calls,
            "get_window_s": options.sandbox.window_s,
        },
        "server": {"host": options.host, "port": options.port, "log_level": "warning"},
    }
    path = directory / "taskgate.yaml"
    _write_private(path, yaml.safe_dump(settings, sort_keys=False))
    return path


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def demo_text(options: DemoOptions, *, sandbox: Sandbox, store: Valkey) -> str:
    """Return a text that says what runs and which commands to try next."""
    served = sandbox.upstream.options
    names: Sequence[str] = [app.name for app in served.apps]
    about = f"{served.calls} calls in {served.window_s:g} s, {served.tasks} tasks for each app"
    return f"""
Taskgate is running. Ctrl-C stops everything and leaves nothing behind.

  gateway   {options.url}
  docs      {options.url}/docs
  upstream  {sandbox.base_url} (a sandbox: {about})
  apps      {", ".join(names)}
  Valkey    {store.url}

Try it:

  curl -H 'Authorization: Bearer {KEY}' '{options.url}/tasks?app={names[0]}&limit=3'
"""
