"""A client generated for TypeScript, its types and what it reads. Run by `make test-clients`."""

import re
from collections.abc import Callable
from pathlib import Path

from tests.clients.commands import run
from tests.clients.troubles import arguments, expected, read

HERE = Path(__file__).parent
CONTRACT = HERE.parents[1] / "openapi" / "openapi.json"
TOOLS = HERE / "node_modules" / ".bin"


async def compile_program(directory: Path, program: str) -> None:
    """Generate the client, and compile the program with it by tsc --strict into program.js."""
    (directory / "node_modules").symlink_to(HERE / "node_modules")
    (directory / "package.json").write_text('{"type": "module"}')
    (directory / "tsconfig.json").write_text((HERE / "tsconfig.json").read_text())
    (directory / "program.ts").write_text(program)
    await run(TOOLS / "openapi-typescript", CONTRACT, "--output", "taskgate.ts", cwd=directory)
    await run(TOOLS / "tsc", "--project", directory, cwd=directory)


async def test_each_problem(tmp_path: Path, troubled_url: str) -> None:
    """Every problem is read, as an answer and in a stream's last line, as the contract shows it."""
    await compile_program(tmp_path, (HERE / "programs" / "problems.ts").read_text())
    said = await run("node", "program.js", troubled_url, *arguments(), cwd=tmp_path)
    assert read(said) == expected()


async def test_typescript_client(tmp_path: Path, shown_program: Callable[[str], str]) -> None:
    """The program of the docs passes tsc --strict with the client, reads pages, budget, a problem, a stream."""
    await compile_program(tmp_path, shown_program("ts"))
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
