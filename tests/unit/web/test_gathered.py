"""What is gathered is told once, soon, and in order."""

import asyncio
from collections.abc import Sequence

import msgspec

from service.web.gathered import GATHERED_MAX, GATHERED_S, Gathered
from service.web.trail import Observation
from tests.servers import until
from tests.unit.web.test_access_log import SEEN


class Told:
    """A listener."""

    def __init__(self) -> None:
        self.at_once: list[int] = []
        self.ids: list[str] = []

    def __call__(self, seen: Sequence[Observation]) -> None:
        """Listen."""
        self.at_once.append(len(seen))
        self.ids += [each.request_id for each in seen]


def numbered(count: int) -> list[Observation]:
    """So many requests."""
    return [msgspec.structs.replace(SEEN, request_id=str(number)) for number in range(count)]


async def test_told_soon_without_another_request() -> None:
    """A few are told together, a moment later, each listener the same; the next ones again."""
    one, other = Told(), Told()
    gathered = Gathered([one, other])
    loop = asyncio.get_running_loop()
    for rounds in (1, 2):
        begun_s = loop.time()
        for each in numbered(3):
            gathered(each)
        assert len(one.at_once) == rounds - 1
        await until(lambda rounds=rounds: len(one.at_once) == rounds)  # type: ignore[misc]  # a default is no type
        assert loop.time() - begun_s >= GATHERED_S * 0.9
    assert one.at_once == other.at_once == [3, 3]
    assert one.ids == other.ids == ["0", "1", "2"] * 2


async def test_told_at_once_when_they_are_many() -> None:
    """However many come within a moment, no listener is told of more than the bound at a time, and of none twice."""
    told = Told()
    gathered = Gathered([told])
    seen = numbered(3 * GATHERED_MAX + 1)
    for each in seen:
        gathered(each)
    assert told.at_once == [GATHERED_MAX] * 3
    gathered.flush()
    gathered.flush()
    assert told.ids == [each.request_id for each in seen]


async def test_nothing_is_held_after_the_end() -> None:
    """Closing tells the last; who ends after that is told of at once."""
    told = Told()
    gathered = Gathered([told])
    first, second = numbered(2)
    gathered(first)
    gathered.close()
    assert told.ids == ["0"]
    gathered(second)
    assert told.ids == ["0", "1"]
