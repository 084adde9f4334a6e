"""What a collector receives, and how OpenTelemetry's own variables change it: over a real socket."""

import os
from collections.abc import Iterator

import pytest

from service.model.origin import NOBODY, Origin, Payer
from service.settings import TelemetrySettings
from service.telemetry.traces import traces_of
from service.upstream.call_events import UpstreamCall, UpstreamCallEnd
from tests.integration.telemetry.collector import Collector, collecting

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED, UNSAMPLED = (Origin(traceparent=f"00-{TRACE}-b7ad6b7169203331-{flags}") for flags in ("01", "00"))


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that listens."""
    with collecting() as made:
        yield made


async def export(settings: TelemetrySettings, *origins: Origin) -> None:
    """Trace a call for each origin, and export the spans."""
    traces = traces_of(settings, os.environ, regions={"shop": "seoul"}, version="1.2")
    assert traces is not None
    async with traces.flushed():
        for origin in origins or (NOBODY,):
            call = UpstreamCall(app="shop", payer=Payer(caller="c", origin=origin, waited_s=0.0), attempt=1)
            traces.begin(call).end(UpstreamCallEnd(call=call, result="ok", code=None, took_s=0.1, sent_at_s=1.0))


async def test_by_default_everything_is_exported_as_ours(collector: Collector) -> None:
    """The resource names the service, its version and this process."""
    await export(TelemetrySettings(otlp_endpoint=f"{collector.url}/"))
    (span,) = collector.spans
    assert collector.paths == ["/v1/traces"]
    assert (span.resource["service.name"], span.resource["service.version"]) == ("taskgate", "1.2")
    assert len(span.resource["service.instance.id"]) == 36


async def test_variables_name_service_and_resource(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """`OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` override our own values."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.version=9,service.name=x")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gate")
    await export(TelemetrySettings(otlp_endpoint=collector.url))
    (span,) = collector.spans
    assert span.resource["service.name"] == "gate"
    assert span.resource["service.version"] == "9"
    assert span.resource["deployment.environment.name"] == "test"


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/own/way"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "/own/way/v1/traces")],
)
async def test_variables_name_the_endpoint(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, endpoint: str, path: str
) -> None:
    """An endpoint in the environment is used as the specification says, with the headers named beside it."""
    monkeypatch.setenv(endpoint, f"{collector.url}/own/way")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop")
    await export(TelemetrySettings())
    assert collector.paths == [path]
    assert collector.headers[0]["x-tenant"] == "shop"
    assert len(collector.spans) == 1


@pytest.mark.parametrize(
    ("sampler", "argument", "exported"),
    [
        ("", "", ["sampled", "root"]),
        ("always_on", "", ["sampled", "unsampled", "root"]),
        ("always_off", "", []),
        ("parentbased_always_off", "", ["sampled"]),
        ("traceidratio", "0", []),
        ("parentbased_traceidratio", "0", ["sampled"]),
        ("parentbased_traceidratio", "1", ["sampled", "root"]),
    ],
)
async def test_variables_choose_the_sampler(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, sampler: str, argument: str, exported: list[str]
) -> None:
    """By default the caller decides, and what begins here is recorded; every standard sampler can be chosen instead."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    other = Origin(traceparent=UNSAMPLED.traceparent.replace(TRACE, "1" * 32))
    await export(TelemetrySettings(otlp_endpoint=collector.url), SAMPLED, other, NOBODY)
    kinds = {TRACE: "sampled", "1" * 32: "unsampled"}
    calls = [kinds.get(span.trace, "root") for span in collector.spans if span.kind == "CLIENT"]
    assert calls == exported
