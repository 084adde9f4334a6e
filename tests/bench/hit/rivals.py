"""The servers that hits are compared with: each a process on core 0."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from tests.bench.hit.load import CALLER, TARGET
from tests.ports import free_port
from tests.scenes.fleet import Fleet, key_of
from tests.servers import eventually

SERVER_CORE = 0
_HERE = Path(__file__).parent
BENCH_PYTHON = Path(sys.prefix + "-bench") / "bin" / "python"
LUA_REDIS = Path("/usr/share/lua/5.1/nginx/redis.lua")


def start_rivals(stack: ExitStack, redis_port: int, directory: Path) -> dict[str, int | None]:
    """Start all rivals; return their ports by kind, None for those that are not installed."""
    ports: dict[str, int | None] = dict.fromkeys(("nginx", "nginx-checked"))
    for kind in ("bare", "litestar", "litestar-redis"):
        ports[kind] = _started(
            stack, lambda port, kind=kind: [sys.executable, "-m", "tests.bench.hit.servers", kind, port, redis_port]
        )
    for kind, options in (("fastapi", ()), ("fastapi-locked", ("locked",))):
        ports[kind] = None
        if BENCH_PYTHON.exists():
            command = [BENCH_PYTHON, _HERE / "fastapi_redis.py"]
            ports[kind] = _started(
                stack, lambda port, command=command, options=options: [*command, port, redis_port, *options]
            )
    if nginx_binary() and LUA_REDIS.exists():
        ports["nginx-checked"] = checked = free_port()
        ports["nginx"] = _started(
            stack, lambda port: _nginx(directory, PORT=port, CHECKED_PORT=checked, REDIS_PORT=redis_port)
        )
    return ports


def nginx_binary() -> str | None:
    """Return nginx, if it is installed."""
    return shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")


def answers(port: int) -> Callable[[], bool]:
    """Return a check of whether a server answers with a page of the usual size."""
    request = Request(f"http://127.0.0.1:{port}{TARGET}", headers={"Authorization": f"Bearer {key_of(CALLER)}"})

    def check() -> bool:
        try:
            with urlopen(request, timeout=5) as answer:  # noqa: S310 - the scheme is ours
                return 5500 < len(answer.read()) < 7000
        except OSError:
            return False

    return check


def pin(pid: int, *, core: int) -> None:
    """Keep all threads of a process on one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def pinned(gateways: Fleet) -> int:
    """Keep the only gateway on its core, wait for its first page, and return its port."""
    replica = gateways.replicas[0]
    pin(replica.pid, core=SERVER_CORE)
    eventually(answers(replica.port))
    return replica.port


def _started(stack: ExitStack, command: Callable[[int], list[object]]) -> int:
    port = free_port()
    stack.enter_context(_process(*map(str, command(port))))
    eventually(answers(port))
    return port


def _nginx(directory: Path, **values: object) -> list[object]:
    text = (_HERE / "nginx.conf.template").read_text()
    for name, value in {"DIRECTORY": directory, "KEY": key_of(CALLER), **values}.items():
        text = text.replace(f"@{name}@", str(value))
    (directory / "nginx.conf").write_text(text)
    return [nginx_binary(), "-c", directory / "nginx.conf"]


@contextmanager
def _process(*command: str) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)
