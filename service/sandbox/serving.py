"""Serve the sandbox upstream: inside this process for tests and the demo, and as `taskgate sandbox`."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TextIO

import msgspec

from service.sandbox.control import SandboxControl
from service.sandbox.errors import PortTaken
from service.sandbox.http1 import SandboxReply, SandboxRequest, serve_http
from service.sandbox.upstream import SandboxApp, SandboxClock, SandboxOptions, SandboxUpstream


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A running sandbox upstream: its address, and the object itself."""

    base_url: str
    upstream: SandboxUpstream

    @property
    def app(self) -> SandboxApp:
        """The first app, for tests that need only one."""
        return self.upstream.options.apps[0]


@asynccontextmanager
async def sandbox_upstream(
    options: SandboxOptions | None = None, *, host: str = "127.0.0.1", port: int = 0, clock: SandboxClock | None = None
) -> AsyncIterator[Sandbox]:
    """Serve a sandbox upstream while the context lasts; port 0 picks a free one. Raise PortTaken."""
    upstream = SandboxUpstream(options or SandboxOptions(), clock=clock)
    control = SandboxControl(upstream)

    async def handle(request: SandboxRequest) -> SandboxReply:
        if request.path.startswith("/sandbox"):
            return control.handle(request)
        return await upstream.call(request)

    async with serve_http(handle, host=host, port=port) as base_url:
        yield Sandbox(base_url=base_url, upstream=upstream)


def stop_signals() -> asyncio.Event:
    """Return an event that is set by Ctrl-C, SIGTERM and a closed terminal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return stop


def run_sandbox(
    options: SandboxOptions, *, host: str = "127.0.0.1", port: int = 8100, out: TextIO | None = None
) -> int:
    """Serve the sandbox upstream until Ctrl-C or SIGTERM (exit status 0); status 2 if the address is taken."""
    return asyncio.run(_serve_until_stopped(options, host=host, port=port, out=out or sys.stdout))


async def _serve_until_stopped(options: SandboxOptions, *, host: str, port: int, out: TextIO) -> int:
    stop = stop_signals()
    try:
        async with sandbox_upstream(options, host=host, port=port) as sandbox:
            print(sandbox_text(sandbox), file=out, flush=True)
            await stop.wait()
    except PortTaken as exc:
        print(f"taskgate sandbox: {exc}", file=sys.stderr)
        return 2
    return 0


def sandbox_text(sandbox: Sandbox) -> str:
    """Return what is served, and how to point a gateway's configuration to it."""
    options = sandbox.upstream.options
    lines = [
        f"The sandbox upstream answers at {sandbox.base_url}",
        f"{options.tasks} tasks for each app (seed {options.seed}), in ranges of up to {options.range_max_days} days",
        f"{options.calls} list_sched_task and {options.calls} get_sched_task in {options.window_s:g} s for each app",
        "",
    ]
    for app in options.apps:
        lines += [f"  {app.name:<6} sdkappid {app.sdkappid}   admin {app.admin}", f"         secret   {app.key}"]
    lines += [
        "",
        f"Counts     curl {sandbox.base_url}/sandbox/stats",
        f'A fault    curl {sandbox.base_url}/sandbox/faults -d \'{{"kind":"status","status":502,"calls":3}}\'',
        f"No faults  curl -X DELETE {sandbox.base_url}/sandbox/faults",
        "",
        "Ctrl-C ends it.",
    ]
    return "\n".join(lines)
