"""Clients in Python, hand-written and generated: they type-check, and they page, poll, wait, stream and handle
refusals."""

import os
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import Steady, shown_program
from tests.clients.steady import SAID
from tests.clients.troubles import arguments, expected, read
from tests.clients.watched import Watched
from tests.clients.watching import follows
from tests.commands import run

pytestmark = pytest.mark.scene

PROGRAM = Path(__file__).parent / "programs" / "problems.py"


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mypy's cache, which saves it most of its work from the second program on."""
    return tmp_path_factory.mktemp("checked")


@pytest.mark.parametrize("library", ["requests", "httpx", "aiohttp"])
async def test_each_library(tmp_path: Path, checked: Path, steady: Steady, library: str) -> None:
    """The program of the docs passes mypy --strict, prints the expected output, and obeys Retry-After."""
    (tmp_path / "program.py").write_text(shown_program(f"Python: {library}", "python"))
    await check_types(tmp_path, checked, "program.py", "--allow-untyped-calls", "--ignore-missing-imports")
    await runs(tmp_path, steady)


async def test_one_task(tmp_path: Path, checked: Path, steady: Steady) -> None:
    """The program of the docs for one task passes mypy --strict, polls it, and reports an unknown id as a problem."""
    (tmp_path / "program.py").write_text(shown_program("One task", "python"))
    await check_types(tmp_path, checked, "program.py")
    environment = {**os.environ, **steady.environment}
    said = await run(sys.executable, "program.py", cwd=tmp_path, environment={**environment, "TASK_ID": "1007"})
    assert said.splitlines() == ["1007 is dispatched: Task 7", "unchanged"]
    with pytest.raises(AssertionError, match="404 /problems/unknown-task"):
        await run(sys.executable, "program.py", cwd=tmp_path, environment={**environment, "TASK_ID": "1"})


async def test_watching(tmp_path: Path, checked: Path, watched: Watched) -> None:
    """The program of the docs with httpx-sse passes mypy --strict, and follows a list across a lost connection."""
    (tmp_path / "program.py").write_text(shown_program("Watching: Python", "python"))
    await check_types(tmp_path, checked, "program.py")
    await follows(watched, sys.executable, "-u", "program.py", cwd=tmp_path)


async def test_generated_client(python_client: Path, checked: Path, steady: Steady) -> None:
    """The same holds for the client generated from the contract, which has types of its own."""
    (python_client / "program.py").write_text(shown_program("Python, generated", "python"))
    await check_types(python_client, checked, "program.py", "taskgate_client")
    await runs(python_client, steady)


async def check_types(directory: Path, cache: Path, *arguments: str) -> None:
    """Raise AssertionError if mypy reports anything; it keeps what it knows of libraries in `cache`."""
    command = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", cache)
    await run(*command, *arguments, cwd=directory)


async def runs(directory: Path, steady: Steady) -> None:
    """Raise AssertionError unless the program prints the expected output."""
    environment = {**os.environ, **steady.environment}
    assert (await run(sys.executable, "program.py", cwd=directory, environment=environment)).splitlines() == SAID
    assert steady.gateway.has_waited()


async def test_each_problem(python_client: Path, troubled_url: str) -> None:
    """Every problem is read, as an answer and in a stream's last line, as the contract shows it."""
    (python_client / "problems.py").write_text(PROGRAM.read_text())
    said = await run(sys.executable, "problems.py", troubled_url, *arguments(), cwd=python_client)
    assert read(said) == expected()
