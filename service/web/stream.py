"""A whole list as newline-delimited JSON: one task a line, block by block, and a last line that says how it ended.

Blocks are asked for one at a time, the next when the reader has taken the one before: who reads slowly has neither a
place in line nor a call, and of the list no more than one block is held.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

import msgspec
from msgspec.structs import replace

from service.model.errors import StreamTooLong, UpstreamBroken
from service.model.pages import Chunk, PageRequest, Source
from service.model.queries import Slice, rfc3339
from service.model.streams import Only, Seen, labels_of
from service.observe.outcomes import STREAMED
from service.observe.request import RequestContext
from service.web.answers import Answer, Header, Reply
from service.web.hangup import unless_hung_up
from service.web.headers.encoding import GZIP, stream_encoding
from service.web.headers.ratelimit import ratelimit
from service.web.identify import Access
from service.web.interfaces import GatewayAPI
from service.web.page_answer import VARY
from service.web.problems.from_errors import Problem
from service.web.problems.handlers import late_problem

NDJSON = "application/x-ndjson"
TOTAL = b"x-total-count"

READER_MAX_S = 300.0
"""How long a reader may leave a block where it is; then the stream is cut off."""
TASKS_MAX = 1_000_000

_encoder = msgspec.json.Encoder()

Send = Callable[[dict[str, Any]], Awaitable[None]]


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream ended: `complete` where the end of the list was reached.

    `count` is how many lines came before, `total` how many tasks the query matches by the newest block. `changed` tells
    that the list was seen to change meanwhile: tasks may be missing or come twice. `missing` counts tasks that the
    upstream did not give, or gave without an id. `fetched_at` is when the upstream
    was asked for the oldest block, `stale` whether one of them was past its freshness. `next` leads to the rest.
    """

    complete: bool
    count: int
    total: int
    changed: bool
    missing: int
    fetched_at: str
    stale: bool
    problem: Problem | None
    next: str | None


class LastLine(msgspec.Struct, frozen=True, kw_only=True):
    """The last line: its one member is of no task."""

    end: End


class Course:
    """What a stream has sent so far, and what it has seen of the list. `only` are the tasks that are wanted."""

    def __init__(self, first: Chunk, only: Only) -> None:
        self.count = 0
        self._missing = 0
        self._only = only
        self._seen = Seen(total=first.total)
        self._fetched_at_ms = first.fetched_at_ms
        self._stale = False

    def lines(self, chunk: Chunk) -> bytes:
        """The lines of one more chunk."""
        labels = [labels_of(record) for record in chunk.records]
        ids = [each.id for each in labels]
        self._seen = self._seen.after(ids, total=chunk.total, is_short=chunk.is_short)
        self._fetched_at_ms = min(self._fetched_at_ms, chunk.fetched_at_ms)
        self._stale |= chunk.source is Source.STALE
        self._missing += chunk.missing
        wanted = [record for record, each in zip(chunk.records, labels, strict=True) if self._only.takes(each)]
        self.count += len(wanted)
        return b"".join(_line(record) for record in wanted)

    def last_line(self, *, problem: Problem | None, following: str | None) -> bytes:
        """The line that says how it ended."""
        end = End(
            complete=problem is None,
            count=self.count,
            total=self._seen.total,
            changed=self._seen.changed,
            missing=self._missing,
            fetched_at=rfc3339(self._fetched_at_ms // 1000),
            stale=self._stale,
            problem=problem,
            next=following,
        )
        return _encoder.encode(LastLine(end=end)) + b"\n"


class TaskStream(Reply):
    """Sends a list from its `first` chunk on; `link` makes the reference to the rest from an offset.

    `in_flight` is entered for as long as it is being sent. It ends, with a last line that says so, as soon as the
    caller loses its `access`, also while a block is waited for. It goes through `tasks_max` tasks at most.
    """

    def __init__(
        self,
        gateway: GatewayAPI,
        ask: PageRequest,
        first: Chunk,
        *,
        only: Only,
        context: RequestContext,
        in_flight: AbstractContextManager[None],
        access: Access,
        link: Callable[[int], str],
        tasks_max: int = TASKS_MAX,
        reader_max_s: float = READER_MAX_S,
    ) -> None:
        self._encoding = stream_encoding(context.fields.get(b"accept-encoding"))
        fields = _fields(ask, first, context)
        if self._encoding is not None:
            fields = (*fields, (b"content-encoding", GZIP.encode()))
        super().__init__(Answer(status=200, headers=fields, body=b""))
        self._gateway = gateway
        self._ask = ask
        self._first: Chunk | None = first
        self._context = context
        self._in_flight = in_flight
        self._access = access
        self._link = link
        self._tasks_max = tasks_max
        self._reader_max_s = reader_max_s
        self._course = Course(first, only)

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Send it, for as long as somebody reads."""
        try:
            with self._in_flight:
                await unless_hung_up(self._send_all(send), receive=receive, context=self._context)
        except TimeoutError:
            self._context.hung_up = True  # without a last line, and without the end of the body

    async def _send_all(self, send: Send) -> None:
        answer = self._answer
        await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers]})
        first, self._first = self._first, None
        assert first is not None  # noqa: S101 - an answer is sent once
        if self._context.is_head:  # as much as a page would have cost
            self._context.outcome = first.source.value
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        last_line = await self._send_tasks(send, first)
        await self._sent(send, last_line, more=False)

    async def _send_tasks(self, send: Send, chunk: Chunk | None) -> bytes:
        """Send all lines but the last, which is returned. Raise TimeoutError if the reader takes no more.

        While the reader is waited for, nothing is held but the encoded lines of one chunk, which the server counts.
        """
        context, following, is_empty = self._context, None, False
        while True:
            try:
                if chunk is None and following is not None:
                    self._check(following, is_empty=is_empty)
                    slice_ = Slice(offset=following, limit=self._ask.slice.limit)
                    ask = replace(self._ask, caller=self._access.now(), slice=slice_)
                    async with self._access.held():
                        chunk = await self._gateway.chunk(ask)
                assert chunk is not None  # noqa: S101 - tells the type
                lines = self._course.lines(chunk)
            except Exception as exc:  # noqa: BLE001 - the answer has begun: its last line alone can still tell
                problem = late_problem(context, exc)
                rest = self._ask.slice.offset if following is None else following
                return self._course.last_line(problem=problem, following=self._link(rest))
            context.waited_s += chunk.waited_s
            context.upstream_s += chunk.upstream_s
            following, is_empty, chunk = chunk.following, chunk.is_empty, None
            # White space before the next line's value keeps a connection in use where no task is sent for long.
            await self._sent(send, lines or b" ", more=True)
            del lines
            if following is None:
                context.outcome = STREAMED
                return self._course.last_line(problem=None, following=None)
            await asyncio.sleep(0)  # what is in memory comes without a wait: let others have their turn

    def _check(self, following: int, *, is_empty: bool) -> None:
        """Raise UpstreamBroken if the list can't go on, StreamTooLong if it may not: a total may be any number."""
        if is_empty:
            raise UpstreamBroken("the list has ended before its own total", app=self._ask.query.app)
        if following - self._ask.slice.offset >= self._tasks_max:
            raise StreamTooLong(bound=self._tasks_max)

    async def _sent(self, send: Send, body: bytes, *, more: bool) -> None:
        if self._encoding is not None:
            body = self._encoding.part(body, is_last=not more)
        await asyncio.wait_for(
            send({"type": "http.response.body", "body": body, "more_body": more}), self._reader_max_s
        )


def _line(record: bytes) -> bytes:
    """A record as a line. Raw line feeds can only stand between the tokens of `content`, which is the upstream's."""
    if b"\n" in record or b"\r" in record:
        record = msgspec.json.format(record, indent=-1)
    return record + b"\n"


def _fields(ask: PageRequest, first: Chunk, context: RequestContext) -> tuple[Header, ...]:
    fields: list[Header] = [
        (b"content-type", NDJSON.encode()),
        (b"cache-control", b"no-store"),
        (b"vary", VARY),
        (TOTAL, b"%d" % first.total),
    ]
    if context.wait_applied_s is not None:
        fields.append((b"preference-applied", b"wait=%d" % context.wait_applied_s))
    if first.budget is not None:
        fields.extend(ratelimit(ask.query.app, first.budget))
    return tuple(fields)
