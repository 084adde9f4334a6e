"""Fixtures of the HTTP tests."""

from collections.abc import AsyncIterator

import pytest

from tests.http.site import Web


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """The HTTP side around a fake gateway."""
    web = Web()
    async with web.client:
        yield web
