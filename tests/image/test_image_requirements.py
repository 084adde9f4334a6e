"""What requirements/image.txt leaves out is never imported, and its versions are those of the tests."""

import asyncio
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from tests.integration.telemetry.collector import collecting
from tests.scenes.fleet import PRESENT, fleet, get
from tests.servers import Server

_ROOT = Path(__file__).resolve().parents[2]
_PIN = re.compile(r"(?m)^([A-Za-z0-9._-]+)==(\S+)")
_BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is not in the image", name=name)

sys.meta_path.insert(0, Blocker())
"""


def pins(name: str) -> dict[str, str]:
    return dict(_PIN.findall((_ROOT / "requirements" / f"{name}.txt").read_text()))


def modules_beside_the_image() -> set[str]:
    """The modules of all packages that are installed here and not in the image."""
    held: set[str] = {"service"}
    others: set[str] = set()
    image = {name.lower().replace("_", "-") for name in pins("image")}
    for distribution in distributions():
        tops = {file.parts[0].partition(".")[0] for file in distribution.files or () if file.suffix in (".py", ".so")}
        name = distribution.metadata["Name"].lower().replace("_", "-")
        (held if name in image else others).update(tops)
    return others - held


@pytest.fixture
def as_in_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Processes that are started now can't import what the image lacks."""
    blocked = modules_beside_the_image()
    (tmp_path / "sitecustomize.py").write_text(_BLOCKER.format(blocked=blocked))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return blocked


def test_the_image_is_tested_with_its_own_versions() -> None:
    """Each pin is that of the tests."""
    assert pins("image").items() <= pins("dev").items()


def test_every_module_can_be_imported(as_in_the_image: set[str]) -> None:
    """All of the gateway, but for the sandbox, which the image lacks too."""
    assert {"faker", "pygments", "rich", "click", "pytest"} <= as_in_the_image
    done = subprocess.run([sys.executable, "-c", "import faker"], check=False, capture_output=True, cwd=_ROOT)
    assert b"faker is not in the image" in done.stderr
    every = (
        "import importlib, pkgutil, service\n"
        "for module in pkgutil.walk_packages(service.__path__, 'service.'):\n"
        "    if 'main' not in module.name and 'sandbox' not in module.name:\n"
        "        importlib.import_module(module.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", every], check=False, capture_output=True, text=True, cwd=_ROOT)
    assert done.stderr == ""


@pytest.mark.usefixtures("as_in_the_image")
async def test_a_gateway_serves_with_what_the_image_holds(own_valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page, the documentation, metrics and a trace: what is imported only when it is used is there as well."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with collecting() as collector:
        traced = {"otlp_endpoint": collector.url}
        async with fleet(own_valkey, replicas=1, release=PRESENT, telemetry=traced) as gateways:
            replica = gateways.replicas[0]
            assert (await gateways.page(0)).status == 200
            assert (await get(replica.port, "/docs")).status == 200
            assert (await get(replica.metrics_port, "/metrics")).status == 200
            async with asyncio.timeout(10):
                while not collector.spans:
                    await asyncio.sleep(0.02)
            assert "is not in the image" not in replica.log()
