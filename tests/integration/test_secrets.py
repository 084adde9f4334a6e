"""No secret is revealed: a gateway with the most verbose logs is led through every error, and all its output is
searched. The gateway is a real process with real parts. It is started with a saboteur (`SABOTEUR`), inactive until
it is triggered, which causes an unforeseen fault and proves that the search finds something.
"""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.sandbox.faults import CutOff, ErrorCode, Garbage, Hang, HangUp, HttpStatus, Oversize, SandboxFault
from service.sandbox.http1 import SandboxReply, SandboxRequest
from service.sandbox.serving import Sandbox, sandbox_upstream
from service.sandbox.upstream import SandboxOptions
from service.upstream.codes import TABLE, CodeKind
from tests.control_client import control
from tests.forks import taskgate
from tests.integration.telemetry.collector import Collector, collecting
from tests.ports import free_port
from tests.scenes.fleet import Got, get
from tests.servers import Server
from tests.settings import hashed

ROOT = Path(__file__).parents[2]
KEY, WRONG_KEY = "tg_the-key-of-a-caller-in-tests", "tg_a-key-that-nobody-was-given"
REDIS_PASSWORD = "redis-password-of-this-test"
WORDLESS = "eJ" + "x" * 80  # the shape of a signature
STOPS = {code for known in TABLE if known.kind is CodeKind.TOO_MANY_BAD_SIGNATURES for code in known.codes}
CODES = sorted({code for known in TABLE for code in known.codes} - STOPS | {90104, 99999})
SIGNATURE_SHAPE = re.compile(rb"eJ[A-Za-z0-9*_-]{60,}")

SABOTEUR = """
import sys
from pathlib import Path

import structlog

from service.__main__ import main
from service.upstream.signer import Signer

order, current = Path(sys.argv[1]), Signer.current

def sabotaged(self, now_s):
    key, signature = self._secret.read(now_s), current(self, now_s)
    wanted = order.read_text() if order.exists() else ""
    if wanted == "fault":
        raise RuntimeError("a fault, with the key and the signature among its frames' variables")
    if wanted == "leak the key":
        structlog.get_logger().info("sabotage", note=key.decode())
    if wanted == "leak the signature":
        structlog.get_logger().info("sabotage", note=signature.text)
    return signature

Signer.current = sabotaged
sys.exit(main(["serve"]))
"""


class Talkative:
    """The gateway at log level debug, all that it has written and answered, and the secrets that must not be in it."""

    def __init__(self, directory: Path, sandbox: Sandbox, valkey: Server, collector: Collector) -> None:
        self.sandbox, self.valkey = sandbox, valkey
        self.port, self.metrics_port = free_port(), free_port()
        self.collector = collector
        self.log = directory / "log"
        self.order = directory / "order"
        self.answers: list[bytes] = []
        self.signatures: set[str] = set()
        self.process: subprocess.Popen[bytes] | None = None
        self.configuration = directory / "taskgate.yaml"
        self.configuration.write_text(yaml.safe_dump(self._settings(directory)))
        self.environment = _clean_environment() | {"REDIS_PW": REDIS_PASSWORD}
        sandbox.upstream.call = self._noting(sandbox.upstream.call)

    def _settings(self, directory: Path) -> dict[str, Any]:
        apps = {}
        for app in self.sandbox.upstream.options.apps:
            (directory / f"{app.name}.secret").write_text(app.key)
            file = f"{app.name}.secret"
            apps[app.name] = {
                "sdkappid": app.sdkappid, "admin": app.admin, "base_url": self.sandbox.base_url, "secret_file": file
            }  # fmt: skip
        return {
            "apps": apps,
            "callers": {"tests": {"keys": [hashed(KEY)], "apps": list(apps)}},
            "redis": {"url": self.valkey.url, "password_env": "REDIS_PW", "timeout_s": 5.0},
            "budget": {"calls": 100, "pause_s": 0.1, "transit_s": 0.05, "redis_grace_s": 0.1},
            "cache": {"stale_if_error_s": 0, "memory_bytes": 0},
            "upstream": {
                "answer_max_bytes": 500_000, "connect_timeout_s": 1.0, "read_timeout_s": 1.0, "call_timeout_s": 1.5,
                "stopped_s": 0.05,
            },
            "telemetry": {
                "metrics_port": self.metrics_port, "otlp_endpoint": self.collector.url, "send_traceparent": True
            },
            "server": {"port": self.port, "log_level": "debug", "log_format": "json", "drain_s": 1},
        }  # fmt: skip

    def _noting(self, call: Any) -> Any:
        async def noted(request: SandboxRequest) -> SandboxReply:
            self.signatures.update(value for name, value in request.parameters if name == "usersig")
            answer: SandboxReply = await call(request)
            return answer

        return noted

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the gateway, and end it by a signal, so that its last output is included."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SABOTEUR, str(self.order)],
                cwd=ROOT,
                env=self.environment | {"TASKGATE_CONFIG": str(self.configuration)},
                stdout=log,
                stderr=log,
            )
        try:
            yield
            self.process.terminate()
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()

    async def ready(self) -> None:
        """Wait until it is ready."""
        async with asyncio.timeout(20):
            while True:
                assert self.process is not None
                assert self.process.poll() is None, self.log.read_text()
                with contextlib.suppress(OSError):
                    if (await self.ask("/readyz")).status == 200:
                        return
                await asyncio.sleep(0.02)

    async def ask(self, target: str, *, method: str = "GET", key: str = KEY, **fields: str) -> Got:
        """Send a request, and keep the response: status, header fields and body."""
        headers = {"Authorization": f"Bearer {key}", "Prefer": "wait=2"} | fields
        got = await get(self.port, target, headers, method=method)
        self.answers.append(json.dumps(got.headers).encode() + b"\n" + got.body)
        return got

    async def under(self, fault: SandboxFault, query: str, *, app: str = "shop") -> Got:
        """Request a page that is not stored, while the upstream has this fault."""
        await control(self.sandbox).add_fault(fault)
        got = await self.ask(f"/tasks?app={app}&q={urllib.parse.quote(query)}")
        await control(self.sandbox).clear_faults()
        if app == "shop":
            await self.lifted()
        return got

    async def lifted(self) -> None:
        """Wait until calls are made again, according to `/readyz`."""
        async with asyncio.timeout(20):
            while (await self.ask("/readyz")).json["apps_ok"] < len(self.sandbox.upstream.options.apps):
                await asyncio.sleep(0.01)

    def written(self) -> bytes:
        """All that the gateway wrote, answered, and sent to the collector of traces."""
        return b"\n".join((self.log.read_bytes(), self.collector.raw, *self.answers))

    async def measured(self) -> bytes:
        """The metrics as they stand, kept as an answer."""
        got = await get(self.metrics_port, "/metrics")
        assert got.status == 200
        self.answers.append(got.body)
        return got.body

    def secrets(self) -> dict[str, str]:
        """Return the secrets by what they are."""
        apps = self.sandbox.upstream.options.apps
        return (
            {f"the secret of {app.name}": app.key for app in apps}
            | {f"signature {number}": text for number, text in enumerate(sorted(self.signatures))}
            | {"a caller's key": KEY, "a key that is not known": WRONG_KEY, "Redis's password": REDIS_PASSWORD}
            | {f"the hash of {key}": hashed(key) for key in (KEY, WRONG_KEY)}
        )


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("TASKGATE")}


@pytest.fixture
async def configured(tmp_path: Path) -> AsyncIterator[Talkative]:
    """A gateway that does not run yet, with a Redis that requires a password."""
    with Server("--requirepass", REDIS_PASSWORD) as valkey:
        async with sandbox_upstream(SandboxOptions(calls=1000, tasks=300)) as sandbox:
            with collecting() as collector:
                yield Talkative(tmp_path, sandbox, valkey, collector)


@pytest.fixture
async def gateway(configured: Talkative) -> AsyncIterator[Talkative]:
    """The gateway, running and ready."""
    with configured.running():
        await configured.ready()
        yield configured


def found(written: bytes, secrets: dict[str, str]) -> list[str]:
    """Return the names of the secrets that were found, plain or URL-encoded, and anything shaped like a signature."""
    names = [
        name
        for name, text in secrets.items()
        if text.encode() in written or urllib.parse.quote_plus(text).encode() in written
    ]
    return names + [match[0].decode() for match in SIGNATURE_SHAPE.finditer(written)]


ENDINGS: tuple[SandboxFault, ...] = (
    *(HttpStatus(status=status) for status in (301, 404, 429, 500, 502, 503)),
    *(HangUp(), HangUp(reset=True), HangUp(counted=False), Hang(hold_ms=2000)),
    *(Garbage(of=of) for of in ("bytes", "html", "empty", "array", "no_code", "no_tasks", "wrong_types")),
    *(CutOff(), CutOff(declared=False), Oversize(bytes=600_000), Oversize(bytes=600_000, declared=False)),
)


async def test_no_error_reveals_a_secret(gateway: Talkative) -> None:
    """No code, fault, refusal or outage reveals a secret, key, hash, signature or password anywhere."""
    assert (await gateway.ask("/tasks?app=shop")).status == 200
    (signature,) = gateway.signatures
    echo = f"refused: usersig={signature}&identifier=administrator, that is {signature}"
    seen = {code: (await gateway.under(ErrorCode(code=code, text=echo), f"code {code}")).status for code in CODES}
    assert set(seen.values()) == {422, 502, 503}, seen
    for number, fault in enumerate(ENDINGS):
        assert (await gateway.under(fault, f"fault {number}")).status in {502, 503, 504}, fault
    for code in STOPS:
        assert (await gateway.under(ErrorCode(code=code, text=echo), "stopped", app="news")).status == 502
    await _every_path(gateway)
    await _refusals_of_ours(gateway)
    gateway.order.write_text("fault")
    assert (await gateway.ask("/tasks?app=shop&q=fault")).status == 500
    gateway.order.unlink()
    gateway.valkey.kill()
    assert (await gateway.ask("/tasks?app=shop&q=without%20redis")).status == 503
    await gateway.ask("/readyz")
    assert b"taskgate_problems_total" in await gateway.measured()
    assert gateway.process is not None
    gateway.process.terminate()
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0
    log = gateway.log.read_text()
    assert '"level":"debug"' in log or '"level":"info"' in log
    assert {span.name for span in gateway.collector.spans} >= {"GET /tasks", "POST /v4/timpush/list_sched_task"}
    assert "a fault, with the key" in log, "the traceback of a fault is logged"
    assert found(gateway.written(), gateway.secrets()) == []


async def _every_path(gateway: Talkative) -> None:
    """Request every path of the contract, and some others, correctly and incorrectly."""
    contract = (await gateway.ask("/openapi.json")).json
    for path in (*contract["paths"], "/nothing", "/tasks/1", "/docs", "/docs/start.js"):
        for method in ("GET", "HEAD", "POST", "DELETE"):
            for key in (KEY, WRONG_KEY):
                await gateway.ask(path.replace("{name}", "failed"), method=method, key=key)


async def _refusals_of_ours(gateway: Talkative) -> None:
    """Send parameters, credentials and sizes that are rejected, with secrets where people put them by mistake."""
    statuses = [
        (await gateway.ask(f"/tasks?app=shop&key={KEY}&usersig={WORDLESS}&limit=nan&since={KEY}")).status,
        (await gateway.ask(f"/tasks?app={KEY}")).status,
        (await gateway.ask(f"/{KEY}/{WORDLESS}")).status,
        (await gateway.ask("/tasks?app=shop", Authorization=f"Basic {KEY}")).status,
        (await gateway.ask("/tasks?app=shop", Authorization=WORDLESS)).status,
        (await gateway.ask("/tasks?app=shop", key=WRONG_KEY)).status,
        (await gateway.ask("/tasks?app=shop", Prefer="wait=0", **{"Cache-Control": "no-cache"})).status,
        (await gateway.ask("/tasks?app=shop&q=none", **{"Cache-Control": "only-if-cached"})).status,
        (await gateway.ask("/tasks?app=shop&q=" + "x" * 9000)).status,
        (await gateway.ask("/tasks?app=shop", **{"X-Large": KEY * 800})).status,
    ]
    assert statuses == [400, 404, 404, 401, 401, 401, 504, 504, 414, 431]


async def test_the_search_finds_leaks(gateway: Talkative) -> None:
    """If the saboteur logs a secret or a signature under a harmless name, the search finds it."""
    leaks = {"leak the key": "the secret of shop", "leak the signature": "signature 0"}
    for order in leaks:
        gateway.order.write_text(order)
        assert (await gateway.ask(f"/tasks?app=shop&q={order.replace(' ', '-')}")).status == 200
    assert gateway.process is not None
    gateway.process.terminate()
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0
    assert set(leaks.values()) <= set(found(gateway.written(), gateway.secrets()))


async def test_commands_reveal_no_secret(configured: Talkative) -> None:
    """`check --call` with a wrong key, and `check` of a file with secrets in the wrong places, reveal none."""
    (configured.configuration.parent / "shop.secret").write_text("0123456789abcdef" * 4)
    good = yaml.safe_load(configured.configuration.read_text())
    bad = configured.configuration.with_name("bad.yaml")
    app = configured.sandbox.app
    good["apps"]["shop"] |= {"secret": app.key, "secret_file": app.key}
    good["callers"]["tests"]["keys"] = [KEY]
    good["redis"] |= {"url": f"redis://:{REDIS_PASSWORD}@127.0.0.1:1/0", "password": REDIS_PASSWORD}
    bad.write_text(yaml.safe_dump(good))
    first = await _run(configured, "check", str(configured.configuration), "--call", "--alone")
    second = await _run(configured, "check", str(bad), TASKGATE__REDIS__URL=f"rediss://x:{REDIS_PASSWORD}@[")
    third = await _run(configured, "check", str(bad))
    assert b"the secret is most likely wrong" in first
    secrets = configured.secrets() | {"the wrong secret": "0123456789abcdef" * 4}
    assert found(first + second + third, secrets) == [], (first + second + third).decode()


async def _run(configured: Talkative, *arguments: str, **environment: str) -> bytes:
    _, out, err = await taskgate(*arguments, environment=configured.environment | environment)
    return (out + err).encode()
