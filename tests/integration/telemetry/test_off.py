"""Features that are not enabled are not imported."""

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
exporting = ("service.telemetry.span", "service.telemetry.http", "opentelemetry.exporter", "requests", "google")
print([name for name in sys.modules if name.startswith(exporting)])
"""


def test_without_an_endpoint_nothing_that_exports_is_imported() -> None:
    """A gateway without tracing loads no exporter, even if it is installed (redis-py loads the API)."""
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_endpoint_in_the_environment_without_the_extra_is_ignored(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that is set for a whole cluster does not keep a gateway without the extra from starting: it warns."""
    monkeypatch.setitem(sys.modules, "service.telemetry.spans", None)
    with capture_logs() as logs:
        assert traces_of(TelemetrySettings(), {name: "http://collector:4318"}, regions={}, version="1") is None
    assert [(event["event"], event["log_level"]) for event in logs] == [("traces.unavailable", "warning")]


@pytest.mark.parametrize(
    ("environ", "warnings"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, 0),
        ({"OTEL_TRACES_EXPORTER": "none"}, 0),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, 1),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, 1),
    ],
)
def test_variables_can_switch_traces_off(environ: dict[str, str], warnings: int) -> None:
    """OpenTelemetry's variables for that are obeyed; a protocol that is not spoken is reported."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"} | environ
    with capture_logs() as logs:
        assert traces_of(TelemetrySettings(), environ, regions={}, version="1") is None
    assert [event["event"] for event in logs] == ["traces.unavailable"] * warnings
