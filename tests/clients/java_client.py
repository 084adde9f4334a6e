"""A client generated for Java, compiled and run. Run by `make test-clients`, as the first run fetches the generator."""

import os
import shutil
from pathlib import Path

from tests.clients.conftest import CONTRACT, Steady, shown_program
from tests.clients.steady import SAID
from tests.commands import run

POM = Path(__file__).parent / "java" / "pom.xml"
WITHIN_S = 540.0


async def test_java_client(tmp_path: Path, steady: Steady) -> None:
    """The program of the docs compiles with the client, prints the expected output, and obeys Retry-After."""
    shutil.copy(POM, tmp_path)
    sources = tmp_path / "src" / "main" / "java"
    sources.mkdir(parents=True)
    (sources / "Example.java").write_text(shown_program("Java", "java"))
    maven = ("mvn", "-q", "-B", f"-Dcontract={CONTRACT}", "compile", "exec:java", "-Dexec.mainClass=Example")
    environment = {**os.environ, **steady.environment}
    said = await run(*maven, cwd=tmp_path, environment=environment, within_s=WITHIN_S)
    printed = [
        line for line in said.splitlines() if "\x1b" not in line
    ]  # Maven resets the terminal's colours at its end
    assert printed[-len(SAID) :] == SAID
    assert steady.gateway.has_waited()
