"""Reports requests to listeners in batches: cheaper per request, and only after the response is sent."""

import asyncio
from collections.abc import Callable, Sequence

from service.observe.request import RequestRecord

BATCH_S = 0.05
BATCH_MAX = 64
"""Small enough that reporting a batch delays no other request by a millisecond."""

OnRequestBatch = Callable[[Sequence[RequestRecord]], None]
"""Called with requests in the order in which they ended. Must not block or raise."""


class BatchedObservers:
    """A `RequestObserver` that collects records for `BATCH_S`, or `BATCH_MAX` of them, and then calls all listeners.

    Before `start` and after `close`, it calls them at once.
    """

    def __init__(self, listeners: Sequence[OnRequestBatch]) -> None:
        self._listeners = tuple(listeners)
        self._records: list[RequestRecord] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start collecting, in this event loop."""
        self._loop = asyncio.get_running_loop()

    def __call__(self, record: RequestRecord) -> None:
        """Collect one record."""
        records = self._records
        records.append(record)
        if self._loop is None:
            self.flush()
        elif len(records) == 1:
            self._timer = self._loop.call_later(BATCH_S, self.flush)
        elif len(records) == BATCH_MAX:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Report the collected records."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        records, self._records = self._records, []
        if records:
            for listener in self._listeners:
                listener(records)

    def close(self) -> None:
        """Report the collected records and stop collecting."""
        self._loop = None
        self.flush()
