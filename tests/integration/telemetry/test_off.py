"""Features that are not enabled are not loaded."""

import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from service.settings import TelemetrySettings
from service.telemetry.traces import ENDPOINTS, traces_of

_PROGRAM = """
import sys
from service.settings import AppSettings, RedisSettings, Settings
from service.app import create_app
app = AppSettings(sdkappid=1400000000, admin="a", region="china", secret_env="SECRET")
settings = Settings(apps={"shop": app}, callers={}, redis=RedisSettings(url="redis://127.0.0.1:1"))
create_app(settings, environ={"SECRET": "0123"})
exporting = ("service.telemetry.spans", "opentelemetry.exporter", "requests", "google")
print([name for name in sys.modules if name.startswith(exporting)])
"""


def test_without_an_endpoint_nothing_that_exports_is_imported() -> None:
    """A gateway without tracing loads no exporter, even if it is installed (redis-py loads the API)."""
    told = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_endpoint_in_the_environment_without_the_extra_is_passed_over(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that is set for a whole cluster does not keep a gateway without the extra from starting: it warns."""
    monkeypatch.setitem(sys.modules, "service.telemetry.spans", None)
    with capture_logs() as logs:
        assert traces_of(TelemetrySettings(), {name: "http://collector:4318"}, regions={}, version="1") is None
    assert [(event["event"], event["log_level"]) for event in logs] == [("traces.unavailable", "warning")]
