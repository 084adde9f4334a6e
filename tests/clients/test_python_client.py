"""A client generated for Python: its types hold, and it lists, pages, streams and is refused."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.commands import run
from tests.clients.troubles import arguments, expected, read

pytestmark = pytest.mark.scene

PROGRAM = Path(__file__).parent / "programs" / "problems.py"


async def test_python_client(python_client: Path, shown_program: Callable[[str], str]) -> None:
    """The program of the docs passes mypy --strict with the client, reads pages, budget, a problem, a stream."""
    (python_client / "program.py").write_text(shown_program("python"))
    mypy = ("-m", "mypy", "--strict", "--config-file=", "--cache-dir", python_client / "cache")
    await run(sys.executable, *mypy, "program.py", "taskgate_client", cwd=python_client)
    *pages, budget, problem, stream = (await run(sys.executable, "program.py", cwd=python_client)).splitlines()
    counts = [re.match(r"(\d+) of (\d+) tasks, taskgate", page) for page in pages]
    assert len(counts) > 1
    read = [(int(count[1]), int(count[2])) for count in counts if count is not None]
    assert len(read) == len(pages)
    total = read[-1][0]
    assert read == [(min(100 * number, total), total) for number in range(1, len(pages) + 1)]
    assert re.fullmatch(r"\d+ of 50 calls are free", budget)
    assert problem.startswith("404 No such app: ")
    streamed = re.fullmatch(r"(\d+) pending tasks in a stream of (\d+)", stream)
    assert streamed is not None
    assert 0 < int(streamed[1]) == int(streamed[2]) < total


async def test_each_problem(python_client: Path, troubled_url: str) -> None:
    """Every problem is read, as an answer and in a stream's last line, as the contract shows it."""
    (python_client / "problems.py").write_text(PROGRAM.read_text())
    said = await run(sys.executable, "problems.py", troubled_url, *arguments(), cwd=python_client)
    assert read(said) == expected()
