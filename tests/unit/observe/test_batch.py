"""Batched records are delivered once, soon, and in order."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from service.observe.batch import BATCH_MAX, BATCH_S, BatchedObservers
from service.observe.request import RequestRecord
from tests.observations import observed
from tests.servers import until


class Recorder:
    """A listener."""

    def __init__(self) -> None:
        self.at_once: list[int] = []
        self.ids: list[str] = []

    def __call__(self, seen: Sequence[RequestRecord]) -> None:
        """Listen."""
        self.at_once.append(len(seen))
        self.ids += [each.request_id for each in seen]


def numbered(count: int) -> list[RequestRecord]:
    """The given number of requests."""
    return [observed(request_id=str(number)) for number in range(count)]


@pytest.fixture
async def recorder() -> Recorder:
    """Two listeners."""
    return Recorder()


@pytest.fixture
async def batched(recorder: Recorder) -> AsyncIterator[BatchedObservers]:
    """The batched observers, started in the test's event loop."""
    batched = BatchedObservers([recorder])
    batched.start()
    yield batched
    batched.close()


async def test_a_few_records_are_delivered_soon() -> None:
    """A few are delivered together, a moment later, the same to each listener; the next ones again."""
    one, other = Recorder(), Recorder()
    batched = BatchedObservers([one, other])
    batched.start()
    loop = asyncio.get_running_loop()
    for rounds in (1, 2):
        begun_s = loop.time()
        for each in numbered(3):
            batched(each)
        assert len(one.at_once) == rounds - 1
        await until(lambda rounds=rounds: len(one.at_once) == rounds)  # type: ignore[misc]  # a default is no type
        assert loop.time() - begun_s >= BATCH_S * 0.9
    assert one.at_once == other.at_once == [3, 3]
    assert one.ids == other.ids == ["0", "1", "2"] * 2


async def test_many_records_are_delivered_sooner(recorder: Recorder, batched: BatchedObservers) -> None:
    """Many that end within a moment don't wait for its end; none is delivered twice."""
    seen = numbered(3 * BATCH_MAX + 1)
    for each in seen:
        batched(each)
        if len(recorder.ids) < int(each.request_id) - BATCH_MAX:
            pytest.fail("more than that were held")
        await asyncio.sleep(0)
    assert max(recorder.at_once) <= BATCH_MAX + 1
    batched.flush()
    batched.flush()
    assert recorder.ids == [each.request_id for each in seen]


async def test_nothing_is_held_before_the_start_and_after_the_end(recorder: Recorder) -> None:
    """Before the start, records are delivered at once; closing delivers the last; after that, at once again."""
    batched = BatchedObservers([recorder])
    first, second, third = numbered(3)
    batched(first)
    assert recorder.ids == ["0"]
    batched.start()
    batched(second)
    assert recorder.ids == ["0"]
    batched.close()
    assert recorder.ids == ["0", "1"]
    batched(third)
    assert recorder.ids == ["0", "1", "2"]
