"""Gateways for clients, and the programs that docs/clients.md shows."""

import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.clients.steady import SteadyGateway
from tests.clients.troubles import TroubledGateway
from tests.clients.watched import Watched, watched
from tests.commands import run
from tests.http.site import KEY, Web

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs" / "clients.md"
CONTRACT = TOP / "openapi" / "openapi.json"


class Steady(NamedTuple):
    """A gateway, and the variables by which the programs find it."""

    gateway: SteadyGateway
    environment: dict[str, str]


@pytest.fixture
async def troubled_url() -> AsyncIterator[str]:
    """The URL of the HTTP side around a gateway that fails as each request specifies."""
    web = Web(gateway=TroubledGateway())
    async with web.client, web.on_a_socket() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def steady() -> AsyncIterator[Steady]:
    """The HTTP side on a socket, around a gateway whose list does not change and whose first page is refused once."""
    gateway = SteadyGateway()
    web = Web(gateway=gateway)
    async with web.client, web.on_a_socket() as port:
        yield Steady(gateway, {"TASKGATE_URL": f"http://127.0.0.1:{port}", "TASKGATE_KEY": KEY})


@pytest.fixture(name="watched")
async def watched_site() -> AsyncIterator[Watched]:
    """A list that changes while its watchers are cut off, on a socket."""
    async with watched() as site:
        yield site


def shown_program(heading: str, language: str) -> str:
    """The program that docs/clients.md shows under this heading."""
    parts = re.split(r"^## (.+)$", DOCS.read_text(), flags=re.MULTILINE)
    section = dict(zip(parts[1::2], parts[2::2], strict=True))[heading]
    found = re.search(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/clients.md has no {language} under {heading}"
    return found[1]


@pytest.fixture
async def python_client(tmp_path: Path) -> Path:
    """A directory with the generated package `taskgate_client`."""
    generator = Path(sys.executable).with_name("openapi-python-client")
    config = tmp_path / "generator.yaml"
    config.write_text("post_hooks: []\n")
    said = await run(
        *(generator, "generate", "--path", CONTRACT, "--meta", "none", "--output-path", "taskgate_client"),
        *("--config", config, "--fail-on-warning"),
        cwd=tmp_path,
    )
    assert "warning" not in said.lower()
    return tmp_path
