"""Encodes a block, or a refusal stored in its place, as the bytes of one value in Redis.

Head (HEAD_BYTES, unique for each fetch): format, kind, 6 random bytes, fetched_at_ms. Then a CRC-32 over everything but
itself, and the fields. Integers are big-endian. For a block, these follow: the records' ends as an array of 32-bit
integers, their ids (64 bits each) and codes (a byte each) in the block's own layout, and the body. Reading copies them,
and passes over the text once: a checksum says that it is what was written, not that it is a list of tasks.
"""

import struct
from typing import Literal
from zlib import crc32

import msgspec

from service.model.blocks import HEAD_BYTES, Block, MissingTask, RefusedQuery, Stored
from service.model.queries import Range, is_moment
from service.model.streams import TaskLabels

FORMAT = 3
CHANCE_BYTES = 6

_BLOCK = ord("b")
_REFUSAL = ord("r")
_MISSING = ord("m")
_HEAD = struct.Struct(">BB6sQ")
_CHECKSUM = struct.Struct(">I")
_FIELDS = struct.Struct(">qqQBII")
_SETTLED, _UNFINISHED, _CHANGED = 1, 2, 4
_ID_BYTES = 8
_CODE = struct.Struct(">q")
_tasks = msgspec.json.Decoder(list[TaskLabels])
_AFTER_CHECKSUM = HEAD_BYTES + _CHECKSUM.size


class CorruptBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A value that cannot be read, and why. `format` means that an older or newer release has written it."""

    reason: Literal["short", "format", "kind", "checksum", "shape", "sense"]


def encode_value(stored: Stored, *, chance: bytes) -> bytes:
    """Return the value for Redis. `chance` is 6 random bytes, new for each fetch."""
    match stored:
        case Block():
            kind, rest = _BLOCK, _block_bytes(stored)
        case RefusedQuery():
            kind, rest = _REFUSAL, _CODE.pack(stored.code) + stored.text.encode()
        case MissingTask():
            kind, rest = _MISSING, b""
    head = _HEAD.pack(FORMAT, kind, chance, stored.fetched_at_ms)
    return b"".join((head, _CHECKSUM.pack(crc32(rest, crc32(head))), rest))


def decode_value(value: bytes) -> Stored | CorruptBlock:
    """Return what the value contains."""
    if len(value) < _AFTER_CHECKSUM:
        return CorruptBlock(reason="short")
    format_, kind, _, fetched_at_ms = _HEAD.unpack_from(value)
    if format_ != FORMAT:
        return CorruptBlock(reason="format")
    view = memoryview(value)
    if _CHECKSUM.unpack_from(value, HEAD_BYTES)[0] != crc32(view[_AFTER_CHECKSUM:], crc32(view[:HEAD_BYTES])):
        return CorruptBlock(reason="checksum")
    if not is_moment(fetched_at_ms // 1000):
        return CorruptBlock(reason="sense")
    if kind == _BLOCK:
        return _block(value, fetched_at_ms)
    if kind == _REFUSAL:
        return _refusal(value, fetched_at_ms)
    if kind == _MISSING:
        return _missing(value, fetched_at_ms)
    return CorruptBlock(reason="kind")


def _block_bytes(block: Block) -> bytes:
    count = len(block.ends)
    flags = _SETTLED * block.settled | _UNFINISHED * block.unfinished | _CHANGED * block.changed
    fields = _FIELDS.pack(block.range.since_s, block.range.until_s, block.total, flags, block.left_out, count)
    return b"".join((fields, struct.pack(f">{count}I", *block.ends), block.ids, block.codes, block.body))


def _block(value: bytes, fetched_at_ms: int) -> Block | CorruptBlock:
    start = _AFTER_CHECKSUM + _FIELDS.size
    if len(value) < start:
        return CorruptBlock(reason="shape")
    since_s, until_s, total, flags, left_out, count = _FIELDS.unpack_from(value, _AFTER_CHECKSUM)
    ids_start = start + 4 * count
    codes_start = ids_start + _ID_BYTES * count
    body_start = codes_start + count
    if len(value) < body_start:
        return CorruptBlock(reason="shape")
    ends: tuple[int, ...] = struct.unpack_from(f">{count}I", value, start)
    body = value[body_start:]
    if not _are_records(ends, body):
        return CorruptBlock(reason="shape")
    if not _are_tasks(body, ids=value[ids_start:codes_start]):
        return CorruptBlock(reason="sense")
    if not (is_moment(since_s) and is_moment(until_s) and total < 2**63):
        return CorruptBlock(reason="sense")
    if flags & ~(_SETTLED | _UNFINISHED | _CHANGED):
        return CorruptBlock(reason="sense")
    return Block(
        fetched_at_ms=fetched_at_ms,
        range=Range(since_s=since_s, until_s=until_s),
        total=total,
        settled=bool(flags & _SETTLED),
        ends=ends,
        body=body,
        ids=value[ids_start:codes_start],
        codes=value[codes_start:body_start],
        left_out=left_out,
        unfinished=bool(flags & _UNFINISHED),
        changed=bool(flags & _CHANGED),
    )


def _are_records(ends: tuple[int, ...], body: bytes) -> bool:
    """Return whether the body is as many comma-separated objects as there are ends, judged by their first and last
    bytes."""
    begins = 0
    for end in ends:
        if end <= begins or body[begins : begins + 1] != b"{" or body[end - 1 : end] != b"}":
            return False
        if end < len(body) and body[end : end + 1] != b",":
            return False
        begins = end + 1
    return begins == (len(body) + 1 if ends else len(body))


def _are_tasks(body: bytes, *, ids: bytes) -> bool:
    """Return whether the body is the JSON of tasks with these ids."""
    try:
        body.decode()
        tasks = _tasks.decode(b"[%b]" % body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return [task.id for task in tasks] == [*struct.unpack(f">{len(ids) // _ID_BYTES}q", ids)]


def _refusal(value: bytes, fetched_at_ms: int) -> RefusedQuery | CorruptBlock:
    text_start = _AFTER_CHECKSUM + _CODE.size
    if len(value) < text_start:
        return CorruptBlock(reason="shape")
    try:
        text = value[text_start:].decode()
    except UnicodeDecodeError:
        return CorruptBlock(reason="shape")
    return RefusedQuery(fetched_at_ms=fetched_at_ms, code=_CODE.unpack_from(value, _AFTER_CHECKSUM)[0], text=text)


def _missing(value: bytes, fetched_at_ms: int) -> MissingTask | CorruptBlock:
    if len(value) > _AFTER_CHECKSUM:
        return CorruptBlock(reason="shape")
    return MissingTask(fetched_at_ms=fetched_at_ms)
