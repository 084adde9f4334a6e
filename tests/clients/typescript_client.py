"""A client generated for TypeScript, its types and what it reads. Run by `make test-clients`."""

import re
from collections.abc import Callable
from pathlib import Path

from tests.clients.commands import run

HERE = Path(__file__).parent
CONTRACT = HERE.parents[1] / "openapi" / "openapi.json"
TOOLS = HERE / "node_modules" / ".bin"


async def test_typescript_client(tmp_path: Path, shown_program: Callable[[str], str]) -> None:
    """The program of the docs passes tsc --strict with the client, reads pages, budget, a problem, a stream."""
    (tmp_path / "node_modules").symlink_to(HERE / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text((HERE / "tsconfig.json").read_text())
    (tmp_path / "program.ts").write_text(shown_program("ts"))
    await run(TOOLS / "openapi-typescript", CONTRACT, "--output", "taskgate.ts", cwd=tmp_path)
    await run(TOOLS / "tsc", "--project", tmp_path, cwd=tmp_path)
    *pages, budget, problem, stream = (await run("node", "program.js", cwd=tmp_path)).splitlines()
    counts = [re.match(r"(\d+) of (\d+) tasks, taskgate", page) for page in pages]
    read = [(int(count[1]), int(count[2])) for count in counts if count is not None]
    assert len(read) == len(pages) > 1
    total = read[-1][0]
    assert read == [(min(100 * number, total), total) for number in range(1, len(pages) + 1)]
    assert re.fullmatch(r"\d+ of 50 calls are free", budget)
    assert problem.startswith("404 No such app: ")
    streamed = re.fullmatch(r"(\d+) pending tasks in a stream of (\d+)", stream)
    assert streamed is not None
    assert 0 < int(streamed[1]) == int(streamed[2]) < total
