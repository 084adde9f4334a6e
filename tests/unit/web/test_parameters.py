"""Repeated query strings: what is kept parsed, and what is checked for each request."""

import pytest

from service.model.callers import Caller
from service.model.errors import BadRequest
from service.web.parameters import CACHED_MAX_BYTES, TasksReader
from service.web.settings import default_web_settings

NOW_S = 1_750_000_000.0
DAY_S = 86_400


def caller(*apps: str) -> Caller:
    """Return a caller that may read these apps."""
    return Caller(name="c", apps=frozenset(apps), weight=1.0, waiting_max=10, wait_max_s=30.0)


@pytest.fixture
def reader() -> TasksReader:
    """A reader with the default settings."""
    return TasksReader(default_web_settings())


def test_the_default_app_is_that_of_each_caller(reader: TasksReader) -> None:
    """Callers with one app each send the same query string and get their own app; a caller with two must name one."""
    for app in ("shop", "news", "shop"):
        assert reader.read(b"limit=5", caller=caller(app), now_s=NOW_S).query.app == app
    with pytest.raises(BadRequest) as raised:
        reader.read(b"limit=5", caller=caller("shop", "news"), now_s=NOW_S)
    assert [fault.parameter for fault in raised.value.faults] == ["app"]


def test_a_range_is_judged_by_the_time_of_each_request(reader: TasksReader) -> None:
    """A range that ends now is valid only after it has begun."""
    query = b"since=2025-06-15T15:00:00Z&until=now"
    began_s = 1_749_999_600.0
    for _ in range(2):
        reader.read(query, caller=caller("shop"), now_s=began_s + DAY_S)
        with pytest.raises(BadRequest) as raised:
            reader.read(query, caller=caller("shop"), now_s=began_s - DAY_S)
        assert [fault.parameter for fault in raised.value.faults] == ["since"]


def test_a_stream_has_no_limit_though_its_page_has(reader: TasksReader) -> None:
    """The same query string is valid for a page and invalid for a stream, in either order."""
    for _ in range(2):
        assert reader.read(b"limit=5", caller=caller("shop"), now_s=NOW_S).slice.limit == 5
        with pytest.raises(BadRequest):
            reader.read(b"limit=5", caller=caller("shop"), now_s=NOW_S, streamed=True)


def test_a_long_query_string_is_read_as_a_short_one(reader: TasksReader) -> None:
    """Beyond the bound it is parsed each time, with the same result."""
    words = "é" * 100
    query = f"q={'%C3%A9' * 100}&offset=20".encode()
    assert len(query) > CACHED_MAX_BYTES
    for _ in range(2):
        asked = reader.read(query, caller=caller("shop"), now_s=NOW_S)
        assert (asked.query.keyword, asked.slice.offset) == (words, 20)
        assert asked.link_query == f"q={'%C3%A9' * 100}&"
