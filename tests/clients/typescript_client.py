"""Clients in JavaScript, and one generated for TypeScript with its types. Run by `make test-clients`."""

import os
from pathlib import Path

from tests.clients.conftest import CONTRACT, Steady, shown_program
from tests.clients.steady import SAID
from tests.clients.troubles import arguments, expected, read
from tests.clients.watched import Watched
from tests.clients.watching import follows
from tests.commands import run

HERE = Path(__file__).parent
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


async def test_typescript_client(tmp_path: Path, steady: Steady) -> None:
    """The program of the docs passes tsc --strict with the client, prints the expected output, and obeys
    Retry-After."""
    await compile_program(tmp_path, shown_program("TypeScript", "ts"))
    said = await run("node", "program.js", cwd=tmp_path, environment={**os.environ, **steady.environment})
    assert said.splitlines() == SAID
    assert steady.gateway.has_waited()


async def test_eventsource(tmp_path: Path, watched: Watched) -> None:
    """The program of the docs with npm's eventsource follows a list across a lost connection."""
    (tmp_path / "node_modules").symlink_to(HERE / "node_modules")
    (tmp_path / "program.mjs").write_text(shown_program("Watching: eventsource", "js"))
    await follows(watched, "node", "program.mjs", cwd=tmp_path)


async def test_fetch(tmp_path: Path, watched: Watched) -> None:
    """The program of the docs with `fetch` does the same in Node; `make test-browser` runs it in Chromium."""
    call = "await watch(process.env.TASKGATE_URL, process.env.TASKGATE_KEY, (line) => console.log(line));\n"
    (tmp_path / "program.mjs").write_text(shown_program("Watching: JavaScript", "js") + call)
    await follows(watched, "node", "program.mjs", cwd=tmp_path)
