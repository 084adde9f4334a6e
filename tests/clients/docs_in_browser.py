"""The docs in a real browser: authorize, try, read. Run by `make test-browser`; needs Node and Debian's chromium."""

import json
import os
import shutil
from pathlib import Path

from tests.clients.commands import run
from tests.scenes.fleet import key_of

HERE = Path(__file__).parent
CONTRACT = HERE.parents[1] / "openapi" / "openapi.json"


async def test_docs_in_browser(gateway_url: str, tmp_path: Path) -> None:
    """Someone with a key opens /docs, tries GET /tasks and reads its answer; nothing is asked of another machine.

    SCREENSHOT names the whole path of a file to keep the picture in.
    """
    browser = shutil.which("chromium")
    assert browser is not None, "Chromium is not there: apt-get install chromium"
    screenshot: str | Path = os.environ.get("SCREENSHOT") or tmp_path / "docs.png"
    said = await run("node", HERE / "docs_in_browser.mjs", browser, gateway_url, key_of("c0"), screenshot, cwd=tmp_path)
    seen = json.loads(said.splitlines()[-1])
    paths = json.loads(CONTRACT.read_bytes())["paths"]
    assert seen["complaints"] == []
    assert seen["elsewhere"] == []
    assert seen["requests"] > 5
    assert seen["title"].startswith("Taskgate")
    assert seen["operations"] == sum(len(item) for item in paths.values())
    assert (seen["answered"], seen["status"].split()[0]) == (200, "200")
    assert "limit=2" in seen["asked"]
    page = json.loads(seen["shown"])
    assert (page["app"], len(page["tasks"])) == ("shop", 2)
