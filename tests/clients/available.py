"""Test the clients in the languages whose tools are installed, and print which were left out.

A language is left out if its tools are not on the PATH, or if the registry of its packages can't be reached.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

HERE = Path(__file__).parent
PROBE_S = 60.0


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """A language: its tools, its tests, and a command that succeeds if its packages are available."""

    tools: tuple[str, ...]
    tests: str
    probe: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}


LANGUAGES = {
    "Python": Language(tools=(), tests="test_python_client.py"),
    "curl": Language(tools=("curl",), tests="curl_client.py"),
    "TypeScript": Language(
        tools=("node", "npm"),
        tests="typescript_client.py",
        probe=("npm", "ping", "--fetch-retries=0", "--fetch-timeout=10000"),
    ),
    "Go": Language(
        tools=("go",),
        tests="go_client.py",
        probe=("go", "list", "-m", "github.com/oapi-codegen/runtime@latest"),
        environment={"GOFLAGS": "-mod=mod"},
    ),
    "Java": Language(
        tools=("java", "mvn"), tests="java_client.py", probe=("mvn", "-q", "-B", "-f", "java", "dependency:resolve")
    ),
}


def main() -> int:
    """Run the tests. Return pytest's exit status."""
    reasons = {name: missing(language) for name, language in LANGUAGES.items()}
    tests = [LANGUAGES[name].tests for name, reason in reasons.items() if reason is None]
    if LANGUAGES["TypeScript"].tests in tests:
        subprocess.run(("make", "tests/clients/node_modules/.installed"), cwd=HERE.parents[1], check=True)  # noqa: S607
    status = pytest.main([str(HERE / name) for name in tests])
    for name, reason in reasons.items():
        if reason is not None:
            print(f"left out: the client in {name}, since {reason}", file=sys.stderr)
    return int(status)


def missing(language: Language) -> str | None:
    """Return why this language can't be tested here, None if it can."""
    for tool in language.tools:
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    if not language.probe:
        return None
    environment = {**os.environ, **language.environment}
    try:
        subprocess.run(language.probe, cwd=HERE, env=environment, check=True, capture_output=True, timeout=PROBE_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return f"`{' '.join(language.probe)}` fails"
    return None


if __name__ == "__main__":
    sys.exit(main())
