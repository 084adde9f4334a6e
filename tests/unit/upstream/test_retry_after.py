"""The upstream's `Retry-After`, and how the budget applies it."""

import time
from typing import Any

import pytest

from service.gateway.fetch import Fetching
from service.model.errors import UpstreamError, UpstreamHTTPStatus, UpstreamTimeout
from service.upstream.apps import UpstreamApp
from service.upstream.transport import retry_after_s

NOW_S = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("9" * 400, 86_400.0),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
        ("Sun, 06 Nov 1994 08:49:27 GMT", 0.0),
        ("Sun, 06 Nov 2094 08:49:27 GMT", 86_400.0),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("\u0667", None),
        ("Sun, 06 Nov 1994 08:49:47", None),
        ("Sun, 99 Nov 1994 08:49:47 GMT", None),
    ],
)
def test_seconds_and_dates_are_read(field: str, expected: float | None) -> None:
    """Seconds or a date, a day at most; an unreadable value is ignored."""
    assert retry_after_s(field, now_s=NOW_S) == expected


@pytest.mark.parametrize(
    ("error", "pause_s"),
    [
        (UpstreamHTTPStatus(429, app="shop"), 1.0),
        (UpstreamHTTPStatus(429, app="shop", retry_after_s=0.0), 1.0),
        (UpstreamHTTPStatus(429, app="shop", retry_after_s=7.0), 7.0),
        (UpstreamHTTPStatus(503, app="shop", retry_after_s=7.0), 7.0),
        (UpstreamHTTPStatus(503, app="shop", retry_after_s=3600.0), 20.0),
        (UpstreamHTTPStatus(503, app="shop"), 0.0),
        (UpstreamHTTPStatus(500, app="shop", retry_after_s=7.0), 0.0),
        (UpstreamTimeout("no answer", app="shop"), 0.0),
    ],
)
def test_the_budget_pauses_for_as_long_as_it_says(error: UpstreamError, pause_s: float) -> None:
    """For 429, and for 503 with a Retry-After, within the bounds of the settings; the call is tried again then."""
    unused: Any = None
    fetching = Fetching(
        app=UpstreamApp(name="shop", sdkappid=1, admin="a", hosts=()),
        calls=unused,
        stops=unused,
        cache=unused,
        attempts=3,
        pause_s=1.0,
        pause_max_s=20.0,
        clock=time.time,
    )
    failed = fetching.failed(error, attempt=1)
    assert (failed.pause_s, failed.again) == (pause_s, True)
    assert failed.pause_reason == ("throttled" if pause_s else "")
