"""A copy of the tree in which mutants are tried one after the other, each in a separate run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.mutants.mutant import Mutant

LEFT_OUT = "not (scene or long or browser or proxy or prometheus or helm or cluster)"


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A run of tests: whether all passed, the first that failed (or why there is none), and how long it took."""

    passed: bool
    failed: str
    took_s: float


class Trial:
    """A copy of the tree in `folder`."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = folder
        listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        names = subprocess.run(listed, cwd=root, check=True, capture_output=True).stdout.decode().split("\0")
        for name in filter(None, names):
            if (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes((root / name).read_bytes())
        self._written_s = int(time.time())

    def run(self, tests: Sequence[str], *, timeout_s: float, keeps_bytecode: bool = False) -> Ran:
        """Run tests until the first failure; a run that takes too long is ended and counts as failed."""
        command = (sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no", "-rfE")
        environ = {
            **os.environ,
            "PYTHONPATH": str(self._root),
            **({} if keeps_bytecode else {"PYTHONDONTWRITEBYTECODE": "1"}),
        }
        began_s = time.monotonic()
        with subprocess.Popen(
            (
                *command,
                "--hypothesis-profile=mutants",
                "--hypothesis-seed=0",
                "-m",
                LEFT_OUT,
                *(test for test in tests if self._has(test)),
            ),
            cwd=self._root,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                said = process.communicate(timeout=timeout_s)[0].decode(errors="replace")
                failed = _first_failure(said)
            except subprocess.TimeoutExpired:
                failed = f"no end within {timeout_s:.0f} s"
            finally:
                _end(process)
        return Ran(passed=process.returncode == 0, failed=failed, took_s=time.monotonic() - began_s)

    def apply(self, mutant: Mutant) -> None:
        """Write a mutated file with a unique time, so that no other mutant's bytecode is used for it."""
        path = self._root / mutant.path
        path.write_bytes(mutant.applied(path.read_bytes()))
        self._written_s += 2
        os.utime(path, (self._written_s, self._written_s))

    def restore(self, mutant: Mutant, source: bytes) -> None:
        """Restore the file."""
        path = self._root / mutant.path
        path.write_bytes(source)
        self._written_s += 2
        os.utime(path, (self._written_s, self._written_s))

    def _has(self, test: str) -> bool:
        return (self._root / test.partition("::")[0]).exists()


def _first_failure(said: str) -> str:
    """Return the name of the first test that failed, or the last line of a run that broke otherwise."""
    lines = said.strip().splitlines()
    named = [line.split(maxsplit=1)[1].partition(" - ")[0] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return named[0] if named else (lines or ["no output"])[-1]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the run and whatever it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
