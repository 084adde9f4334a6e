"""A gateway for generated clients, and the programs that docs/clients.md shows."""

import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.clients.commands import run
from tests.clients.troubles import TroubledGateway
from tests.http.fake_gateway import Web
from tests.scenes.fleet import fleet, key_of
from tests.servers import Server

TOP = Path(__file__).parents[2]
SHOWN_URL, SHOWN_KEY = "http://127.0.0.1:8000", "sandbox"


@pytest.fixture
async def gateway_url(own_valkey: Server) -> AsyncIterator[str]:
    """Where a gateway listens that lets `c0` read the app `shop`."""
    async with fleet(own_valkey, replicas=1, sandbox_calls=50, budget={"calls": 50}) as gateways:
        yield f"http://127.0.0.1:{gateways.replicas[0].port}"


@pytest.fixture
async def troubled_url() -> AsyncIterator[str]:
    """Where the HTTP side listens around a gateway that fails as each request asks for."""
    web = Web(gateway=TroubledGateway())
    async with web.client, web.on_a_socket() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def shown_program(gateway_url: str) -> Callable[[str], str]:
    """The one program in this language that docs/clients.md shows, made to ask the test's gateway."""

    def program(language: str) -> str:
        text = (TOP / "docs" / "clients.md").read_text()
        (shown,) = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
        assert SHOWN_URL in shown
        assert f'{SHOWN_KEY}"' in shown
        return str(shown).replace(SHOWN_URL, gateway_url).replace(f'{SHOWN_KEY}"', f'{key_of("c0")}"')

    return program


@pytest.fixture
async def python_client(tmp_path: Path) -> Path:
    """A directory with the generated package `taskgate_client`."""
    contract = TOP / "openapi" / "openapi.json"
    generator = Path(sys.executable).with_name("openapi-python-client")
    config = tmp_path / "generator.yaml"
    config.write_text("post_hooks: []\n")
    said = await run(
        *(generator, "generate", "--path", contract, "--meta", "none", "--output-path", "taskgate_client"),
        *("--config", config, "--fail-on-warning"),
        cwd=tmp_path,
    )
    assert "warning" not in said.lower()
    return tmp_path
