"""Made-up lists, encoded as the gateway encodes them, and a source that serves them block by block."""

import asyncio
import json
from collections.abc import Callable, Iterable

from service.model.callers import Caller
from service.model.pages import Chunk, PageRequest, Source
from service.model.queries import FromNow, Query, Range, Sort, rfc3339

QUERY = Query(app="shop", since=FromNow(offset_s=-86_400), until=FromNow(offset_s=86_400), sort=Sort.SCHEDULED)
RANGE = Range(since_s=1_000_000, until_s=2_000_000)


def record(id_: int, *, status: str = "pending", type_: str = "all", title: str = "t", at_s: int = 1_500_000) -> bytes:
    """An encoded task."""
    task = {
        "id": id_,
        "type": type_,
        "status": status,
        "title": title,
        "description": "",
        "created_at": None,
        "scheduled_at": rfc3339(at_s),
        "dispatched": False,
        "dispatch_error": None,
        "push_task_id": None,
        "content": {"a": [1, 2]},
    }
    return json.dumps(task, separators=(",", ":")).encode()


def caller(name: str = "c0") -> Caller:
    """A caller of the app."""
    return Caller(name=name, apps=frozenset(("shop",)), weight=1.0, waiting_max=5, wait_max_s=5.0, may_force=True)


class Blocks:
    """Serves `records` in blocks of `size`, each fresh for `lifetime_s`; counts requests by the caller whose turn
    they take."""

    def __init__(self, records: Iterable[bytes] = (), *, size: int = 100, lifetime_s: float = 0.0) -> None:
        self.records = list(records)
        self.size = size
        self.lifetime_s = lifetime_s
        self.range = RANGE
        self.error: Exception | None = None
        self.source = Source.FETCHED
        self.asked: list[str] = []
        self.before_chunk: Callable[[int], None] = lambda offset: None

    async def chunk(self, ask: PageRequest) -> Chunk:
        """Return a block of the current list."""
        self.asked.append(ask.caller.name)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        offset = ask.slice.offset
        self.before_chunk(offset)
        stop, total = offset + self.size, len(self.records)
        return Chunk(
            records=tuple(self.records[offset:stop]),
            total=total,
            following=stop if stop < total else None,
            is_short=False,
            fetched_at_ms=self.now_ms(),
            range=self.range,
            lifetime_s=self.lifetime_s,
            source=self.source,
        )

    def now_ms(self) -> int:
        """The clock of freshness."""
        return int(asyncio.get_running_loop().time() * 1000)
