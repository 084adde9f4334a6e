"""The parts of the upstream's wire format that all its calls share; see `list_call.py` and `get_call.py`."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import field

from service.model.calls import CallKind
from service.upstream.apps import UpstreamApp
from service.upstream.masking import masked
from service.upstream.records import Oddity, WireTask

PATHS = {CallKind.LIST: "/v4/timpush/list_sched_task", CallKind.GET: "/v4/timpush/get_sched_task"}
TEXT_MAX_CHARS = 200
TEXT_READ_CHARS = 4096

T = TypeVar("T")


class MalformedAnswer(ValueError):
    """An answer that differs from what the upstream's page promises. The text names the field and quotes nothing."""


class UpstreamRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """The upstream's error code, with its own text unchanged."""

    code: int
    text: str


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    code: int = field(name="ErrorCode")
    text: str | None = field(name="ErrorInfo", default=None)
    status: str = field(name="ActionStatus", default="OK")


_heads = msgspec.json.Decoder(_Head)
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""Any escape within a JSON string; the group is a lone surrogate."""


def request_target(app: UpstreamApp, kind: CallKind, *, signature: str, random: int) -> str:
    """Return path and query string of a call. It contains the signature: never log or display it.

    `random` is 32 bits, new for each call.
    """
    query = {
        "sdkappid": app.sdkappid,
        "identifier": app.admin,
        "usersig": signature,
        "random": random,
        "contenttype": "json",
    }
    return f"{PATHS[kind]}?{urlencode(query, safe='*')}"


def read_answer(body: bytes, read_content: Callable[[bytes, Counter[Oddity]], T]) -> T | UpstreamRefusal:
    """Read the status of an answer and, if it is successful, its content by `read_content`. Raise MalformedAnswer.

    `read_content` gets valid text, counts deviations, and may raise what msgspec's decoders raise.
    """
    odd: Counter[Oddity] = Counter()
    try:
        body = _proper_text(body, odd)
        head = _heads.decode(body)
        if head.code != 0:
            return UpstreamRefusal(code=head.code, text=head.text or "")
        if head.status != "OK":
            raise MalformedAnswer("ActionStatus is not OK although ErrorCode is 0")
        return read_content(body, odd)
    except RecursionError as exc:
        raise MalformedAnswer("the answer is nested too deeply") from exc
    except msgspec.ValidationError as exc:
        raise MalformedAnswer(f"the answer lacks a field or has one of another type: {exc}") from exc
    except msgspec.DecodeError as exc:
        raise MalformedAnswer(f"the answer is not JSON: {exc}") from exc


def check_sdkappid(records: Iterable[WireTask], *, sdkappid: int) -> None:
    """Raise MalformedAnswer if a record is of another app: such an answer belongs to another call."""
    if any(record.sdkappid not in (None, sdkappid) for record in records):
        raise MalformedAnswer("the answer holds a task of another app")


def bounded(text: str, *, secret: str = "") -> str:
    """Return the upstream's text, safe to pass on: 200 characters at most, controls escaped, signature removed.

    `secret` is the signature that it may echo; see `masking.py`.
    """
    text = masked(text[:TEXT_READ_CHARS], signature=secret)
    cut = text[: TEXT_MAX_CHARS + 1]
    escaped = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)
    return escaped if len(escaped) <= TEXT_MAX_CHARS else escaped[: TEXT_MAX_CHARS - 1] + "…"


def _proper_text(body: bytes, odd: Counter[Oddity]) -> bytes:
    """Return the answer as valid UTF-8 and JSON: raw JSON within is carried on unchanged.

    Invalid characters become U+FFFD, as in web browsers: half of a surrogate pair in one title is no reason to lose a
    page.
    """
    try:
        body.decode()
    except UnicodeDecodeError:
        odd[Oddity.TEXT] += 1
        body = body.decode(errors="replace").encode()
    if b"\\ud" not in body and b"\\uD" not in body:
        return body

    def replaced(found: re.Match[bytes]) -> bytes:
        if found[1] is None:
            return found[0]
        odd[Oddity.TEXT] += 1
        return rb"\ufffd"

    return _ESCAPE.sub(replaced, body)
