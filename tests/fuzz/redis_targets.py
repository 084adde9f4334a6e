"""Targets: values in Redis, which may be anything."""

import asyncio
import json
import struct
from collections.abc import Sequence
from zlib import crc32

import msgspec

from service.budget.scheduler.interfaces import TickRequest
from service.budget.scheduler.rules import Rules
from service.budget.scheduler.shared import RedisScheduler
from service.cache.codec import CorruptBlock, decode_value, encode_value
from service.model.blocks import HEAD_BYTES, Block, MissingTask, RefusedQuery
from service.model.errors import StoreUnavailable
from service.model.queries import rfc3339
from service.model.streams import TaskFilter, task_labels_of
from service.usage.buckets import added, read_books
from service.watch.changes import task_changes
from service.watch.versions import decode_version, encode_version
from tests.fuzz.target import Target

_RULES = Rules(calls=5, window_ms=1000, transit_ms=500, turn_lease_ms=300, ahead_ms=25, fetch_lease_ms=8500)


def check_block(data: bytes) -> None:
    """A value that is not corrupt can be cut, read and written again. Inputs get the right checksum."""
    if len(data) > HEAD_BYTES + 4:
        rest = data[HEAD_BYTES + 4 :]
        data = data[:HEAD_BYTES] + struct.pack(">I", crc32(rest, crc32(data[:HEAD_BYTES]))) + rest
    found = decode_value(data)
    if isinstance(found, CorruptBlock):
        return
    rfc3339(found.fetched_at_ms // 1000)
    assert encode_value(found, chance=data[2:8]) == data
    if isinstance(found, RefusedQuery | MissingTask):
        return
    assert isinstance(found, Block)
    records = found.records(0, 1000)
    assert found.cut(0, 1000) == b",".join(records) == found.body
    assert len(found.task_ids()) == len(found.codes) == len(records)
    for record in records:
        task_labels_of(record)
        json.loads(record)


def check_version(data: bytes) -> None:
    """A version that is read can be compared, and is encoded to the same bytes."""
    version = decode_version(data)
    if version is None:
        return
    again = decode_version(encode_version(version))
    assert again is not None
    assert again.name == version.name
    assert task_changes({}, version, TaskFilter()) is not None
    rfc3339(version.range.since_s)
    rfc3339(version.range.until_s)


def check_usage(data: bytes) -> None:
    """Fields and values alternate, a line each: counts that are read are whole numbers, and can be added."""
    lines = data.split(b"\n")
    fields = lines[: len(lines) // 2 * 2]

    async def read(keys: Sequence[str], args: Sequence[object]) -> list[object]:
        del keys, args
        return [fields]

    [book] = asyncio.run(read_books(read, ["key"]))  # type: ignore[arg-type]
    total = added((book, book))
    assert total.last_success_ms == book.last_success_ms >= 0
    rfc3339(book.last_success_ms // 1000)
    for name, row in book.rows.items():
        assert ":" not in name or name
        assert all(0 <= getattr(row, column) < 10**18 for column in row.__struct_fields__)


class _Answering:
    """A store whose scripts answer with these bytes."""

    def __init__(self, answer: list[object]) -> None:
        self._answer = answer

    def script(self, source: str) -> "_Answering":
        """See `Store`."""
        del source
        return self

    async def __call__(self, keys: object, args: object) -> list[object]:
        """See `Script`: only the current run is requested this way, and there is none."""
        del keys, args
        return [b"", 0]

    async def load(self, keys: object, args: object) -> list[object]:
        """See `Script`."""
        del keys, args
        return self._answer

    if_loaded = load


def check_script_answer(data: bytes) -> None:
    """If the scheduler's script has read garbage, its reply is parsed, or Redis counts as away."""

    async def tick() -> None:
        store = _Answering([data, b"why"])
        scheduler = RedisScheduler(store, prefix="t", app="shop", replica="r", rules=_RULES)  # type: ignore[arg-type]
        for call in (
            scheduler.tick(TickRequest(wants_board=True)),
            scheduler.begin(1, block="b", known=b""),
            scheduler.done(1, block="b", pause_ms=0, pause_reason=""),
        ):
            try:
                await call
            except StoreUnavailable:
                continue

    asyncio.run(tick())


def _packed(*values: object) -> bytes:
    return msgspec.msgpack.encode(values)


TARGETS = (
    Target(
        name="redis_block",
        check=check_block,
        pieces=(
            b"\x03b",
            b"\x03r",
            b"\x03m",
            bytes(8),
            b"\x00\x00\x00\x02",
            b"{}",
            b",",
            b'{"id":1}',
            b"\xff" * 8,
            b'{"id":1,"type":null,"status":"x"}',
        ),
    ),
    Target(
        name="redis_version",
        check=check_version,
        pieces=(
            b"\x94",
            b"\x01",
            b"\x95",
            b"\xc0",
            b"\xa4",
            b"\xc4\x2c" + bytes(44),
            b"\xcf" + b"\xff" * 8,
            b"\xdd",
            b"\xa1\xff",
        ),
    ),
    Target(
        name="redis_usage",
        check=check_usage,
        pieces=(
            b"c0:turns",
            b"c0:requests",
            b"\n",
            b"1",
            b"9" * 18,
            b"9" * 400,
            b"@:1750000000",
            b"!:ok",
            b"^:ok_ms",
            b"\xb2",
        ),
    ),
    Target(
        name="redis_script_answer",
        check=check_script_answer,
        pieces=(
            _packed(1),
            _packed(b"x"),
            b"resend",
            b"\x90",
            b"\x93",
            b"\xc0",
            b"\xa1\xff",
            b"\xcb" + b"\x7f\xf8" + bytes(6),
            b"\xc4\x01",
        ),
    ),
)
