"""Blocks as bytes: encoded values are decoded, and nothing else is."""

import struct
from zlib import crc32

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.cache.codec import FORMAT, CorruptBlock, decode_value, encode_value
from service.model.blocks import HEAD_BYTES, Block, MissingTask, RefusedQuery, Stored
from service.model.queries import Range
from tests.blocks import TWO_TASKS

CHANCE = b"chance"

YEAR_0001_S, YEAR_9999_S = -62_135_596_800, 253_402_300_799
moments = st.integers(YEAR_0001_S, YEAR_9999_S)
ranges = st.builds(Range, since_s=moments, until_s=moments)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    ids = draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=120))
    texts = [draw(st.text(st.characters(codec="utf-8"), max_size=10)) for _ in ids[:10]] + ["x"] * len(ids[10:])
    parts = [
        msgspec.json.encode({"id": id_, "type": None, "status": text, "title": text})
        for id_, text in zip(ids, texts, strict=True)
    ]
    ends, position = [], -1
    for part in parts:
        position += 1 + len(part)
        ends.append(position)
    return Block(
        fetched_at_ms=draw(st.integers(0, YEAR_9999_S * 1000)),
        range=draw(ranges),
        total=draw(st.integers(0, 2**63 - 1)),
        settled=draw(st.booleans()),
        ends=tuple(ends),
        body=b",".join(parts),
        ids=struct.pack(f">{len(ids)}q", *ids),
        codes=draw(st.binary(min_size=len(parts), max_size=len(parts))),
        left_out=draw(st.integers(0, 1000)),
        unfinished=draw(st.booleans()),
        changed=draw(st.booleans()),
    )


refusals = st.builds(
    RefusedQuery,
    fetched_at_ms=st.integers(0, YEAR_9999_S * 1000),
    code=st.integers(-(2**31), 2**31),
    text=st.text(st.characters(codec="utf-8"), max_size=50),
)

unknown = st.builds(MissingTask, fetched_at_ms=st.integers(0, YEAR_9999_S * 1000))


@given(blocks() | refusals | unknown)
def test_values_round_trip(stored: Stored) -> None:
    """Any block, any refusal and any missing task is decoded to an equal one."""
    assert decode_value(encode_value(stored, chance=CHANCE)) == stored


@given(blocks() | refusals | unknown, st.integers(min_value=0), st.integers(1, 255))
@settings(max_examples=300)
def test_any_changed_byte_is_detected(stored: Stored, place: int, change: int) -> None:
    """A value with one byte changed, wherever, is corrupt."""
    value = bytearray(encode_value(stored, chance=CHANCE))
    value[place % len(value)] ^= change
    assert isinstance(decode_value(bytes(value)), CorruptBlock)


@given(blocks() | refusals | unknown, st.integers(min_value=0))
def test_any_truncated_value_is_detected(stored: Stored, length: int) -> None:
    """A value cut short at any place is corrupt, and so is one with a byte too many."""
    value = encode_value(stored, chance=CHANCE)
    assert isinstance(decode_value(value[: length % len(value)]), CorruptBlock)
    assert isinstance(decode_value(value + b"x"), CorruptBlock)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(value: bytes) -> None:
    """Arbitrary bytes under a key are decoded to a value, and never raise."""
    decode_value(value)
    assert isinstance(decode_value(bytes([FORMAT]) + value), CorruptBlock)


@pytest.mark.parametrize("format_", [0, FORMAT + 1, 255])
def test_another_format_is_corrupt(format_: int) -> None:
    """A value of an older or newer release is corrupt by its format, whatever else it contains."""
    value = encode_value(RefusedQuery(fetched_at_ms=1, code=90104, text="no"), chance=CHANCE)
    assert decode_value(bytes([format_]) + value[1:]) == CorruptBlock(reason="format")


def test_the_head_differs_for_each_fetch() -> None:
    """The head has the promised length; it differs by nonce, time and kind."""
    stored = RefusedQuery(fetched_at_ms=1, code=90104, text="no")
    later = RefusedQuery(fetched_at_ms=2, code=90104, text="no")
    block = Block(fetched_at_ms=1, range=Range(since_s=0, until_s=1), total=0, settled=False, ends=(), body=b"")
    heads = {
        encode_value(stored, chance=b"aaaaaa")[:HEAD_BYTES],
        encode_value(stored, chance=b"bbbbbb")[:HEAD_BYTES],
        encode_value(later, chance=b"aaaaaa")[:HEAD_BYTES],
        encode_value(block, chance=b"aaaaaa")[:HEAD_BYTES],
    }
    assert len(heads) == 4
    assert {len(head) for head in heads} == {16}


def test_the_format_is_unchanged() -> None:
    """The bytes of a known block are these: changing them requires a new FORMAT."""
    block = Block(
        fetched_at_ms=0x0102,
        range=Range(since_s=3, until_s=4),
        total=5,
        settled=True,
        ends=(2, 5),
        body=b"{},{}",
        ids=bytes(16),
        codes=b"\x01\x02",
        left_out=6,
        changed=True,
    )
    expected = (
        "0362 6368616e6365 0000000000000102 8cfd68be 0000000000000003 0000000000000004 0000000000000005 05 00000006"
        " 00000002 00000002 00000005 0000000000000000 0000000000000000 01 02 7b7d2c7b7d"
    )
    assert encode_value(block, chance=CHANCE).hex() == expected.replace(" ", "")


GOOD = TWO_TASKS
GOOD_BODY = GOOD.body


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"range": Range(since_s=YEAR_0001_S - 1, until_s=1)}, "sense"),
        ({"range": Range(since_s=0, until_s=2**62)}, "sense"),
        ({"fetched_at_ms": (YEAR_9999_S + 1) * 1000}, "sense"),
        ({"fetched_at_ms": 2**64 - 1}, "sense"),
        ({"total": 2**63}, "sense"),
        ({"ends": (15, 15)}, "shape"),
        ({"ends": (9, 15)}, "shape"),
        ({"ends": (15,), "body": b'["a":1},{"b":2]', "ids": bytes(8), "codes": b"\0"}, "shape"),
        ({"ends": (7, 15), "body": b'{"a":1};{"b":2}'}, "shape"),
        ({"ends": (7, 15), "body": b'{"a":1},{"b":2}'}, "sense"),
        ({"body": GOOD_BODY.replace(b'"id":1', b'"id":2')}, "sense"),
        ({"body": GOOD_BODY.replace(b'"x"', b"xxx")}, "sense"),
        ({"body": GOOD_BODY.replace(b'"x"', b'"\xff"')}, "sense"),
        ({"ids": bytes(8)}, "shape"),
        ({"codes": b""}, "shape"),
        ({"ends": (), "body": b"", "ids": b"", "codes": b""}, None),
    ],
)
def test_nonsense_with_a_good_checksum_is_no_block(changes: dict[str, object], reason: str | None) -> None:
    """Times beyond the calendar, counts beyond 63 bits, invalid ends: corrupt, like damaged values."""
    assert decode_value(encode_value(GOOD, chance=CHANCE)) == GOOD
    decoded = decode_value(encode_value(msgspec.structs.replace(GOOD, **changes), chance=CHANCE))
    assert getattr(decoded, "reason", None) == reason


def test_a_refusal_whose_text_is_no_text_is_corrupt() -> None:
    """A good checksum does not make its bytes UTF-8."""
    value = encode_value(RefusedQuery(fetched_at_ms=1, code=90104, text=""), chance=CHANCE)
    head, rest = value[:HEAD_BYTES], value[HEAD_BYTES + 4 :] + b"\xff"
    checksum = crc32(head + rest).to_bytes(4, "big")
    assert decode_value(head + checksum + rest) == CorruptBlock(reason="shape")


def test_fields_that_promise_more_records_than_there_are_bytes_are_corrupt() -> None:
    """A good checksum does not make their number right."""
    value = bytearray(encode_value(GOOD, chance=CHANCE))
    count_at = HEAD_BYTES + struct.calcsize(">IqqQBI")
    assert value[count_at : count_at + 4] == b"\0\0\0\2"
    for count in (3, 200, 2**32 - 1):
        value[count_at : count_at + 4] = count.to_bytes(4, "big")
        checksum = crc32(bytes(value[HEAD_BYTES + 4 :]), crc32(bytes(value[:HEAD_BYTES])))
        value[HEAD_BYTES : HEAD_BYTES + 4] = checksum.to_bytes(4, "big")
        assert decode_value(bytes(value)) == CorruptBlock(reason="shape")
