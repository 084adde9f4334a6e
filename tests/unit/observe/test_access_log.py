"""The access log's own lines equal structlog's."""

import io
import json
from typing import Any

import pytest

from service.observe.access_log import AccessLog, log_requests
from service.observe.request import LABELS_MAX, RequestRecord
from service.telemetry.logs import configure
from tests.observations import observed

CALLER = 'or"ders\\'


def written(*seen: RequestRecord) -> list[dict[str, Any]]:
    """Return what the log writes for them, by line."""
    lines: list[str] = []
    log = AccessLog(lambda text, count: lines.extend([text] if count == 1 else text.split("\n")))
    log(seen)
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"waited_s": 1.25, "upstream_s": 0.0501, "calls": 2, "outcome": "fetched", "duration_s": 1.3456},
        {"client": None, "trace_id": "0af7651916cd43dd8448eb211c80319c"},
        {"client": "2001:db8::1", "upstream_s": 0.3, "status": 504, "outcome": "upstream-timeout"},
        {"caller": None, "app": None, "outcome": None, "method": "other", "route": "unrouted", "status": 405},
    ],
)
def test_fields_are_those_of_the_other_log(changes: dict[str, Any]) -> None:
    """Names and values are the same; only the time is the request's own."""
    seen = observed(**({"caller": CALLER} | changes))
    stream = io.StringIO()
    writer = configure("info", as_json=True, stream=stream)
    log_requests([seen])
    writer.close()
    other = json.loads(stream.getvalue())
    (own,) = written(seen)
    assert own.pop("timestamp") == "2025-06-15T15:06:40.000250Z"
    del other["timestamp"]
    assert sorted(own.items(), key=str) == sorted(other.items(), key=str)


def test_each_line_is_of_its_request() -> None:
    """Fields that requests have in common are written for each of them, however many kinds there are."""
    seen = [observed(caller=f"c{number}", ended_at_s=1_750_000_000.5 + number) for number in range(2 * LABELS_MAX)]
    lines = written(*seen, *seen[:3])
    assert [line["caller"] for line in lines] == [each.labels.caller for each in (*seen, *seen[:3])]
    assert [line["timestamp"] for line in lines[58:61]] == [
        "2025-06-15T15:07:38.500000Z",
        "2025-06-15T15:07:39.500000Z",
        "2025-06-15T15:07:40.500000Z",
    ]
