"""Tests in virtual time: waits cost nothing, and durations are exact however busy the machine is."""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping

import pytest

from tests.simulation.virtual_time import VirtualTimeLoop
from tests.unit.budget.lines import Blocks


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """Return the one event loop to use."""
    return {"virtual time": VirtualTimeLoop}


@pytest.fixture
def blocks() -> Blocks:
    """Nothing stored, nothing called."""
    return Blocks()
