"""A small client of the sandbox's control route. Opens one connection per request."""

import ssl
from collections.abc import Iterable
from typing import TypeVar
from urllib.parse import urlencode

import httpx
import msgspec

from service.sandbox.control import AddTasks, AppTasks, RemoveTasks, ResizeTasks, SandboxStats
from service.sandbox.errors import SandboxError
from service.sandbox.faults import SandboxFault
from service.sandbox.serving import Sandbox
from service.sandbox.tasks import SandboxTask

T = TypeVar("T")
TIMEOUT_S = 10.0
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For httpx's clients of servers without TLS: without it, each reads the CAs, which takes longer than many requests."""


class ControlClient:
    """Controls a running sandbox in this process or another. Raises SandboxError if a request is refused."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    async def stats(self, *, sdkappid: int | None = None, window_ms: float | None = None) -> SandboxStats:
        """Return calls, arrival times and the worst window, by default of the limit's own length."""
        parameters = {"sdkappid": sdkappid, "window_ms": window_ms}
        query = urlencode({name: value for name, value in parameters.items() if value is not None})
        return await self._request("GET", f"/sandbox/stats?{query}", answer=SandboxStats)

    async def reset_stats(self) -> None:
        """Reset all counts."""
        await self._request("DELETE", "/sandbox/stats", answer=SandboxStats)

    async def add_fault(self, fault: SandboxFault) -> None:
        """Arm a fault."""
        await self._request("POST", "/sandbox/faults", body=fault, answer=tuple[SandboxFault, ...])

    async def faults(self) -> tuple[SandboxFault, ...]:
        """Return the faults that can still apply."""
        return await self._request("GET", "/sandbox/faults", answer=tuple[SandboxFault, ...])

    async def clear_faults(self) -> None:
        """Disarm all faults."""
        await self._request("DELETE", "/sandbox/faults", answer=tuple[SandboxFault, ...])

    async def add_tasks(self, sdkappid: int, tasks: Iterable[SandboxTask]) -> AppTasks:
        """Add or replace tasks of an app."""
        return await self._request(
            "POST", "/sandbox/tasks", body=AddTasks(sdkappid=sdkappid, tasks=tuple(tasks)), answer=AppTasks
        )

    async def remove_tasks(self, sdkappid: int, ids: Iterable[int]) -> AppTasks:
        """Remove tasks of an app; unknown ids are ignored."""
        return await self._request(
            "DELETE", "/sandbox/tasks", body=RemoveTasks(sdkappid=sdkappid, ids=tuple(ids)), answer=AppTasks
        )

    async def resize_tasks(self, sdkappid: int, total: int) -> AppTasks:
        """Grow an app's list from the seed, or cut it, until it has `total` tasks."""
        return await self._request(
            "PUT", "/sandbox/tasks", body=ResizeTasks(sdkappid=sdkappid, total=total), answer=AppTasks
        )

    async def _request(self, method: str, target: str, *, answer: type[T], body: object = None) -> T:
        content = None if body is None else msgspec.json.encode(body)
        try:
            async with httpx.AsyncClient(
                base_url=self._base_url, timeout=TIMEOUT_S, trust_env=False, verify=NO_TLS
            ) as client:
                response = await client.request(method, target, content=content)
        except httpx.HTTPError as exc:
            raise SandboxError(f"no answer from the sandbox at {self._base_url}") from exc
        if response.status_code != httpx.codes.OK:
            raise SandboxError(f"the sandbox refuses: {response.text}")
        return msgspec.json.decode(response.content, type=answer)


def control(sandbox: Sandbox) -> ControlClient:
    """Return a client of this sandbox."""
    return ControlClient(sandbox.base_url)
