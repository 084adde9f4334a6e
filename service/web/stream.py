"""A whole list as newline-delimited JSON: one task per line, block by block, and a last line with the result.

The next block is requested only when the reader has received the previous one. So a slow reader occupies neither a
place in line nor a call, and at most one block of the list is in memory.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import msgspec
from msgspec.structs import replace

from service.model.errors import StreamTooLong, UpstreamBroken
from service.model.long_lists import ListPosition
from service.model.pages import Chunk, PageRequest, Source
from service.model.queries import Slice, rfc3339
from service.model.streams import SeenTasks, TaskFilter, task_labels_of
from service.observe.outcomes import STREAMED
from service.observe.request import RequestContext
from service.server.asgi import Send
from service.web.hangup import unless_hung_up
from service.web.headers.encoding import GZIP, stream_encoding
from service.web.headers.freshness import VARY
from service.web.headers.ratelimit import ratelimit
from service.web.identify import Access
from service.web.interfaces import GatewayAPI
from service.web.parameters import NDJSON
from service.web.problems.from_errors import Problem
from service.web.problems.handlers import late_problem
from service.web.responses import Header, Response

TOTAL = b"x-total-count"

READER_MAX_S = 300.0
"""Maximum time for a client to read a block, in seconds; then the stream is aborted."""
TASKS_MAX = 1_000_000

_encoder = msgspec.json.Encoder()


class StreamEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream ended: `complete` where the end of the list was reached.

    `count` is the number of preceding lines, `total` the number of tasks that match the query according to the newest
    block; of a range that is read in parts, the sum over the parts read so far. `changed` means that the list changed
    during the stream: tasks may be missing or duplicated. `missing` counts tasks that the upstream did not return, or
    returned without an id. `fetched_at` is when the oldest block was requested from the upstream, `stale` whether any
    block was stale. `next` refers to the rest of the list.
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
    """The last line; its only member occurs in no task."""

    end: StreamEnd


class StreamProgress:
    """The state of a stream: what it has sent and seen of the list so far. `only` selects the tasks to send."""

    def __init__(self, first: Chunk, only: TaskFilter) -> None:
        self.count = 0
        self._missing = 0
        self._only = only
        self._part = 0
        self._before = 0
        self._seen = SeenTasks(total=first.total)
        self._fetched_at_ms = first.fetched_at_ms
        self._stale = False

    def lines(self, chunk: Chunk, *, part: int) -> bytes:
        """Return the lines of the next chunk, which is of this part of the list."""
        if part != self._part:
            self._part = part
            self._before += self._seen.total
            self._seen = replace(self._seen, total=chunk.total)
        labels = [task_labels_of(record) for record in chunk.records]
        ids = [each.id for each in labels]
        self._seen = self._seen.after(ids, total=chunk.total, is_short=chunk.is_short)
        self._fetched_at_ms = min(self._fetched_at_ms, chunk.fetched_at_ms)
        self._stale |= chunk.source is Source.STALE
        self._missing += chunk.missing
        matching = [record for record, each in zip(chunk.records, labels, strict=True) if self._only.takes(each)]
        self.count += len(matching)
        return b"".join(one_line(record) + b"\n" for record in matching)

    def last_line(self, *, problem: Problem | None, following: str | None) -> bytes:
        """Return the last line, which says how the stream ended."""
        end = StreamEnd(
            complete=problem is None,
            count=self.count,
            total=self._before + self._seen.total,
            changed=self._seen.changed,
            missing=self._missing,
            fetched_at=rfc3339(self._fetched_at_ms // 1000),
            stale=self._stale,
            problem=problem,
            next=following,
        )
        return _encoder.encode(LastLine(end=end)) + b"\n"


class TaskStream(Response):
    """Sends a list from its `first` chunk on, which is at `start`.

    `link` returns the reference to the rest of the list from an offset. `in_flight` is entered while the stream is
    being sent. If the caller loses its `access`, the stream ends at once, even while it waits for a block, with a last
    line that says so. It covers at most `tasks_max` tasks.
    """

    def __init__(
        self,
        gateway: GatewayAPI,
        request: PageRequest,
        first: Chunk,
        *,
        start: ListPosition,
        only: TaskFilter,
        context: RequestContext,
        in_flight: AbstractContextManager[None],
        access: Access,
        link: Callable[[int], str],
        tasks_max: int = TASKS_MAX,
        reader_max_s: float = READER_MAX_S,
    ) -> None:
        self._encoding = stream_encoding(context.fields.get(b"accept-encoding"))
        fields = _fields(request, first, context, is_whole=len(start.parts) == 1)
        if self._encoding is not None:
            fields = (*fields, (b"content-encoding", GZIP.encode()))
        super().__init__(status=200, headers=fields)
        self._gateway = gateway
        self._request = request
        self._first: Chunk | None = first
        self._start = start
        self._context = context
        self._in_flight = in_flight
        self._access = access
        self._link = link
        self._tasks_max = tasks_max
        self._reader_max_s = reader_max_s
        self._progress = StreamProgress(first, only)

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Send the stream until it ends or the caller disconnects or stops reading."""
        try:
            with self._in_flight:
                await unless_hung_up(self._send_all(send), receive=receive, context=self._context)
        except TimeoutError:
            self._context.hung_up = True  # no last line, and the body stays unfinished

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.headers]})
        first, self._first = self._first, None
        assert first is not None  # noqa: S101 - a response is sent only once
        if self._context.is_head:  # costs as much as a page
            self._context.outcome = first.source.value
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        last_line = await self._send_tasks(send, first)
        await self._send_part(send, last_line, more=False)

    async def _send_tasks(self, send: Send, chunk: Chunk | None) -> bytes:
        """Send all lines except the last, and return that one. Raise TimeoutError if the reader stalls.

        While waiting for the reader, only the encoded lines of one chunk are in memory; the server accounts for them.
        """
        context, position, has_ended = self._context, self._start, False
        while True:
            try:
                if chunk is None:
                    self._check(position, has_ended=has_ended)
                    chunk = await self._chunk(position)
                lines = self._progress.lines(chunk, part=position.part)
            except Exception as exc:  # noqa: BLE001 - the response has started: only its last line can report it
                problem = late_problem(context, exc)
                return self._progress.last_line(problem=problem, following=self._link(position.place))
            following, has_ended, chunk = position.after(chunk), chunk.is_empty and chunk.following is not None, None
            # Whitespace before the next line's value keeps the connection active if no task is sent for long.
            await self._send_part(send, lines or b" ", more=True)
            del lines
            if following is None:
                context.outcome = STREAMED
                return self._progress.last_line(problem=None, following=None)
            position = following
            await asyncio.sleep(0)  # blocks from memory arrive without waiting: yield to other tasks

    async def _chunk(self, position: ListPosition) -> Chunk:
        """Return the next chunk, as long as the caller has access."""
        slice_ = Slice(offset=position.offset, limit=self._request.slice.limit)
        request = replace(self._request, caller=self._access.current_caller(), query=position.query, slice=slice_)
        async with self._access.enforced():
            return await self._gateway.chunk(request)

    def _check(self, position: ListPosition, *, has_ended: bool) -> None:
        """Raise UpstreamBroken if the list ended early, StreamTooLong beyond `tasks_max`: totals are unbounded."""
        if has_ended:
            raise UpstreamBroken("the list has ended before its own total", app=self._request.query.app)
        if position.place - self._start.place >= self._tasks_max:
            raise StreamTooLong(bound=self._tasks_max)

    async def _send_part(self, send: Send, body: bytes, *, more: bool) -> None:
        if self._encoding is not None:
            body = self._encoding.part(body, is_last=not more)
        await asyncio.wait_for(
            send({"type": "http.response.body", "body": body, "more_body": more}), self._reader_max_s
        )


def one_line(record: bytes) -> bytes:
    """Return a record without line breaks, which can only occur between the JSON tokens of `content`."""
    if b"\n" in record or b"\r" in record:
        return msgspec.json.format(record, indent=-1)
    return record


def _fields(request: PageRequest, first: Chunk, context: RequestContext, *, is_whole: bool) -> tuple[Header, ...]:
    """Return the header fields. The total is among them if the first block says it, as that of a part does not."""
    fields: list[Header] = [
        (b"content-type", NDJSON.encode()),
        (b"cache-control", b"no-store"),
        (b"vary", VARY),
    ]
    if is_whole:
        fields.append((TOTAL, b"%d" % first.total))
    if context.wait_applied_s is not None:
        fields.append((b"preference-applied", b"wait=%d" % context.wait_applied_s))
    if first.budget is not None:
        fields.extend(ratelimit(request.query.app, first.budget))
    return tuple(fields)
