"""Targets: query strings and header fields."""

import ipaddress
import re
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import parse_qsl

from opentelemetry import trace

from service.model.callers import Caller
from service.model.errors import BadRequest, NotAllowed, UnknownApp
from service.model.queries import At, FromNow
from service.server.request_head import is_host
from service.telemetry.spans import trace_context
from service.watch.events import event_id, position_of
from service.web.client_address import ClientAddresses
from service.web.headers import accept, encoding
from service.web.headers.cache_control import DELTA_MAX_S, cache_directives_of, patience_of
from service.web.headers.conditional import matches_etag
from service.web.headers.origin import cross_origin_status
from service.web.parameters import TasksReader
from service.web.settings import default_web_settings
from tests.fuzz.field_oracle import NotStrict, items_of, tags_of, weight_of
from tests.fuzz.target import Target

CALLER = Caller(name="c", apps=frozenset(("shop",)), weight=1.0, waiting_max=10, wait_max_s=30.0)
NOW_S = 1_750_000_000
ITEMS = 64
LIST_PIECES = (b",", b";", b"=", b'"', b"\\", b" ", b"\t", b"q", b"0", b"1", b".5", b"*", b"/", b"9" * 12, b"a", b"W/")

_reader = TasksReader(default_web_settings())
_names = ("app", "since", "until", "sort", "q", "offset", "limit", "status", "type")


def strictly() -> suppress:
    """Compare with the second parser, if that accepts the input."""
    return suppress(NotStrict)


def check_query(data: bytes) -> None:
    """Accepted parameters are those that the standard library parses; a rejection repeats no bytes raw."""
    try:
        asked = _reader.read(data, caller=CALLER, now_s=NOW_S)
    except (UnknownApp, NotAllowed):
        return
    except BadRequest as exc:
        _check_faults(exc)
        return
    escaped = re.sub(rb"[\x80-\xff]", lambda match: b"%%%02X" % match[0][0], data).decode("ascii")
    pairs = parse_qsl(escaped, keep_blank_values=True, encoding="utf-8", errors="strict")
    texts = dict(pairs)
    assert len(texts) == len(pairs)
    assert texts.keys() <= set(_names)
    assert asked.query.keyword == texts.get("q")
    assert asked.slice.offset == int(texts.get("offset", "0"))
    assert "limit" not in texts or asked.slice.limit == int(texts["limit"])
    assert isinstance(asked.query.since, At | FromNow)
    assert ",".join(sorted(asked.only.statuses)) == ",".join(sorted(texts.get("status", "").split(","))).strip(",")


def _check_faults(refusal: BadRequest) -> None:
    assert 1 <= len(refusal.faults) <= 20
    for fault in refusal.faults:
        assert fault.parameter in _names or re.fullmatch(r"[!-~…]{0,60}", fault.parameter), fault
        assert fault.detail.isprintable()


def check_cache_control(data: bytes) -> None:
    """Directives are those of the second parser; numbers are within bounds."""
    directives = cache_directives_of({b"cache-control": data}, caller=CALLER)
    for number in (directives.max_age_s, directives.min_fresh_s, directives.stale_if_error_s):
        assert number is None or 0 <= number <= DELTA_MAX_S
    with strictly():
        items = items_of(data)
        if len(items) > ITEMS - 8 or any(parameters for _, _, parameters in items):
            return
        first: dict[str, str | None] = {}
        for name, value, _ in items:
            first.setdefault(name, value)
        assert directives.no_cache is ("no-cache" in first and first["no-cache"] is None)
        assert directives.only_if_cached is ("only-if-cached" in first and first["only-if-cached"] is None)
        assert directives.max_age_s == _seconds(first.get("max-age"))
        assert directives.min_fresh_s == _seconds(first.get("min-fresh"))
        assert directives.stale_if_error_s == _seconds(first.get("stale-if-error"))


def check_prefer(data: bytes) -> None:
    """The wait is that of the second parser, within the caller's bound."""
    patience = patience_of({b"prefer": data}, caller=CALLER, default_s=10.0)
    assert 0 <= patience.wait_s <= CALLER.wait_max_s
    with strictly():
        items = items_of(data)
        waits = [value for name, value, _ in items if name == "wait"]
        if len(items) > ITEMS - 8:
            return
        asked_s = _seconds(waits[0]) if waits else None
        assert patience.applied_s == (None if asked_s is None else min(asked_s, CALLER.wait_max_s))


def _seconds(text: str | None) -> int | None:
    if text is None or not text or any(char not in "0123456789" for char in text):
        return None
    return min(int(text), DELTA_MAX_S)


def check_accept(data: bytes) -> None:
    """The result is one of the offers, or none; if the second parser accepts the field, the best by weight."""
    offered = ("application/json", "application/x-ndjson", "text/event-stream")
    chosen = accept.choose_media_type(data, offered)
    assert chosen is None or chosen in offered
    with strictly():
        weights: dict[str, float] = {}
        items = items_of(data, with_slash=True)
        for item in items:
            weights[item[0]] = max(weight_of(item), weights.get(item[0], 0.0))
        if not weights or len(items) > ITEMS - 8:
            return

        def of(media_type: str) -> float:
            ranges = (media_type, media_type.partition("/")[0] + "/*", "*/*")
            return next((weights[each] for each in ranges if each in weights), 0.0)

        best = max(of(each) for each in offered)
        assert (chosen is None) is (best == 0)
        assert chosen is None or of(chosen) == best


def check_accept_encoding(data: bytes) -> None:
    """The result is never a coding that the field excludes according to the second parser."""
    available = ("zstd", "gzip")
    choice = encoding.choose_encoding(data, available)
    assert choice.coding in (None, *available)
    with strictly():
        items = items_of(data)
        weights: dict[str, float] = {}
        for item in items:
            weights.setdefault("gzip" if item[0] == "x-gzip" else item[0], weight_of(item))
        if len(items) > ITEMS - 8:
            return
        if choice.coding is not None:
            assert weights.get(choice.coding, weights.get("*", 0.0) if choice.coding == "gzip" else 0.0) > 0
        else:
            assert not weights or choice.takes_identity


def check_if_none_match(data: bytes) -> None:
    """The condition holds exactly if the second parser finds the tag."""
    etag = b'W/"a"'
    held = matches_etag(data, etag)
    field = data.strip(b" \t")
    try:
        expected = b"a" in tags_of(data)
    except NotStrict:
        expected = field in (b"*", etag)
    assert held is (expected or field == b"*")


def check_origin(data: bytes) -> None:
    """Lines `host`, `origin`, `sec-fetch-site`, `sec-fetch-mode`: an open gateway serves its own names alone."""
    values = [*data.split(b"\n"), b"", b"", b"", b""]
    names = (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode")
    fields: Mapping[bytes, bytes] = {name: value for name, value in zip(names, values, strict=False) if value}
    if b"host" in fields and not is_host(fields[b"host"]):
        return  # 400, long before
    for method in ("GET", "DELETE"):
        status = cross_origin_status(method, fields, is_open=True)
        assert status in (None, 403, 421)
        if b"host" in fields:
            assert (status == 421) is not _names_this_machine(fields[b"host"].decode("latin-1"))
        if method == "DELETE" and fields.get(b"sec-fetch-site") == b"cross-site":
            assert status in (403, 421)
        assert cross_origin_status(method, fields, is_open=False) in (None, 403)


def _names_this_machine(host: str) -> bool:
    name = host[1 : host.index("]")] if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower().rpartition(".")[2] == "localhost"


def check_last_event_id(data: bytes) -> None:
    """A position that makes an id which is read as the same position, or none."""
    position = position_of(data.decode("latin-1"), tag="0a1b2c3d")
    if position is not None:
        assert position_of(event_id("0a1b2c3d", position), tag="0a1b2c3d") == position
        assert data.startswith(b"0a1b2c3d-")


def check_traceparent(data: bytes) -> None:
    """Lines `traceparent` and `tracestate`: a context only from what the W3C's grammar allows."""
    parent, _, state = data.decode("latin-1").partition("\n")
    span = trace.get_current_span(trace_context(parent, state)).get_span_context()
    if span.is_valid:
        found = re.match(r"\s*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}", parent)
        assert found, parent
        assert (found[1] != "ff", int(found[2], 16), int(found[3], 16)) == (True, span.trace_id, span.span_id)


def check_forwarded_for(data: bytes) -> None:
    """The peer's address, or one of those forwarded that are addresses."""
    address = ClientAddresses(("10.0.0.0/8",)).of(("10.0.0.1", 1), {b"x-forwarded-for": data})
    assert address is not None
    ipaddress.ip_address(address)


TARGETS = (
    Target(
        name="query",
        check=check_query,
        pieces=(*(f"{name}=".encode() for name in _names), b"&", b"%", b"%00", b"%C3%A9", b"+", b"-P7D", b"now", b";"),
    ),
    Target(
        name="cache_control",
        check=check_cache_control,
        pieces=(*LIST_PIECES, b"no-cache", b"max-age=", b"max-stale", b"min-fresh=", b"only-if-cached", b"5"),
    ),
    Target(name="prefer", check=check_prefer, pieces=(*LIST_PIECES, b"wait=", b"respond-async", b"5")),
    Target(
        name="accept",
        check=check_accept,
        pieces=(*LIST_PIECES, b"application/json", b"text/*", b"text/event-stream", b"application/x-ndjson", b";q="),
    ),
    Target(
        name="accept_encoding",
        check=check_accept_encoding,
        pieces=(*LIST_PIECES, b"gzip", b"x-gzip", b"zstd", b"identity", b";q=0", b";q="),
    ),
    Target(name="if_none_match", check=check_if_none_match, pieces=(*LIST_PIECES, b'"a"', b'W/"a"', b'"b"', b"\x80")),
    Target(
        name="origin",
        check=check_origin,
        pieces=(
            b"localhost",
            b"127.0.0.1",
            b"[::1]",
            b":8000",
            b".",
            b"\n",
            b"http://",
            b"evil",
            b"cross-site",
            b"null",
        ),
    ),
    Target(
        name="last_event_id", check=check_last_event_id, pieces=(b"0a1b2c3d", b"-", b"0123456789abcdef", b"7", b"0")
    ),
    Target(
        name="traceparent",
        check=check_traceparent,
        pieces=(
            b"00",
            b"ff",
            b"-",
            b"0" * 16,
            b"0af7651916cd43dd8448eb211c80319c",
            b"b7ad6b7169203331",
            b"\n",
            b"a=b,",
        ),
    ),
    Target(
        name="forwarded_for",
        check=check_forwarded_for,
        pieces=(b",", b" ", b"10.0.0.2", b"192.0.2.1", b"[2001:db8::1]", b":80", b"::ffff:", b"unknown", b"%eth0"),
    ),
)
