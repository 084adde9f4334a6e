"""Clients in Go, one of them generated. Run by `make test-clients`, as the first run fetches the generator."""

import os
import shutil
from pathlib import Path

from tests.clients.conftest import CONTRACT, Steady, shown_program
from tests.clients.steady import SAID
from tests.clients.watched import Watched
from tests.clients.watching import follows
from tests.commands import run

HERE = Path(__file__).parent / "go"
WITHIN_S = 540.0


async def test_go_client(tmp_path: Path, steady: Steady) -> None:
    """The program of the docs passes go vet with the client, prints the expected output, and obeys Retry-After."""
    for name in ("go.mod", "go.sum"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "taskgate").mkdir()
    (tmp_path / "main.go").write_text(shown_program("Go", "go"))
    generate = ("oapi-codegen", "-generate", "types,client,skip-prune", "-package", "taskgate")
    await run("go", "tool", *generate, "-o", "taskgate/taskgate.go", CONTRACT, cwd=tmp_path, within_s=WITHIN_S)
    await run("go", "vet", "./...", cwd=tmp_path, within_s=WITHIN_S)
    environment = {**os.environ, **steady.environment}
    said = await run("go", "run", ".", cwd=tmp_path, environment=environment, within_s=WITHIN_S)
    assert said.splitlines() == SAID
    assert steady.gateway.has_waited()


async def test_watching(tmp_path: Path, watched: Watched) -> None:
    """The program of the docs with the standard library passes go vet, and follows a list across a lost connection."""
    (tmp_path / "go.mod").write_text("module example.org/watch\n\ngo 1.24\n")
    (tmp_path / "main.go").write_text(shown_program("Watching: Go", "go"))
    await run("go", "vet", "./...", cwd=tmp_path, within_s=WITHIN_S)
    await run("go", "build", "-o", "watch", ".", cwd=tmp_path, within_s=WITHIN_S)
    await follows(watched, tmp_path / "watch", cwd=tmp_path)
