"""The choice of a media type by `Accept`."""

import pytest

from service.web.headers.accept import choose_media_type

JSON, LINES = "application/json", "application/x-ndjson"

CHOICES: list[tuple[bytes | None, str | None]] = [
    (None, JSON),
    (b"", JSON),
    (b"*/*", JSON),
    (b"application/*", JSON),
    (b"application/json", JSON),
    (b"application/x-ndjson", LINES),
    (b"Application/X-NDJSON", LINES),
    (b"application/json, application/x-ndjson", JSON),
    (b"application/x-ndjson, application/json", JSON),
    (b"application/x-ndjson, application/json;q=0.9", LINES),
    (b"application/json;q=0.2,application/x-ndjson;q=0.1", JSON),
    (b"application/x-ndjson, */*;q=0.1", LINES),
    (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),
    (b"*/*, application/json;q=0", LINES),
    (b"*/*, application/x-ndjson", LINES),
    (b"application/x-ndjson, application/*", LINES),
    (b"*/*, application/x-ndjson;q=0.9", JSON),
    (b"application/*;q=0.5, application/json;q=0.4", LINES),
    (b"application/json;q=0", None),
    (b"*/*;q=0.000", None),
    (b"text/html", None),
    (b"text/*, image/png", None),
    (b"application/json;charset=utf-8", JSON),
    (b'application/x-ndjson;a=";q=0";q=1', LINES),
    (b"application/x-ndjson ; Q=0.7 , text/html", LINES),
    (b"application/x-ndjson;q=2, application/json;q=0.001", JSON),
    (b"application/x-ndjson;q=0.1234", JSON),
    (b"json, application/x-ndjson", LINES),
    (b"application/x-ndjson x", JSON),
    (b'",', JSON),
]


@pytest.mark.parametrize(("field", "chosen"), CHOICES)
def test_the_highest_weight_wins(field: bytes | None, chosen: str | None) -> None:
    """The highest weight wins, taken from the most specific range; of equals the first; unreadable parts are
    ignored."""
    assert choose_media_type(field, (JSON, LINES)) == chosen
