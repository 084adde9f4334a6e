"""The imports of a gateway before it serves."""

import subprocess
import sys

import pytest

from service.commands.serve import blocked_imports

SEEN = """
import sys
from service.commands import serve
from service.configuration import LoadedSettings
from service.settings import AppSettings, RedisSettings, Settings

app = AppSettings(sdkappid=1400000000, admin="a", secret_env="S")
settings = Settings(apps={"shop": app}, callers={}, redis=RedisSettings(url="redis://127.0.0.1"))
serve.load_config = lambda path, **_: LoadedSettings(settings=settings, warnings=())

class Serving:
    CannotListen = StartFailed = OSError
    serve = staticmethod(lambda *_, **__: print(*sys.modules))

sys.modules["service.server.lifecycle"] = Serving
sys.exit(serve.run("none"))
"""


def test_a_gateway_imports_what_it_uses() -> None:
    """Without tokens and traces nothing is loaded that only these, terminals or unused models need."""
    environment = {"S": "x" * 64, "TASKGATE_CONFIG": "none"}
    command = [sys.executable, "-c", SEEN]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=60)
    assert ended.returncode == 0, ended.stderr
    loaded = set(ended.stdout.split())
    assert {"litestar", "h11", "redis", "structlog"} <= loaded
    dear = {
        "rich",
        "pygments",
        "click",
        "pydantic",
        "attr",
        "opentelemetry.trace",
        "jwt",
        "cryptography.hazmat",
        "httpx",
    }
    assert not dear & loaded


def test_hidden_packages_are_restored() -> None:
    """Inside, an import fails as for a missing package; earlier imports stay; afterwards all is as before."""
    sys.modules.pop("this", None)
    with blocked_imports("this", "json"):
        with pytest.raises(ModuleNotFoundError):
            __import__("this")
        assert __import__("json") is sys.modules["json"]
    assert "this" not in sys.modules
    assert __import__("json").loads("1") == 1
