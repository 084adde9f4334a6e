"""One change in one file, and its diff."""

import difflib

import msgspec


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """A replacement for the bytes from `start` to `stop` of a file. `kind` describes the change in a word or two."""

    path: str
    kind: str
    start: int
    stop: int
    text: str

    def applied(self, source: bytes) -> bytes:
        """Return the changed source."""
        return source[: self.start] + self.text.encode() + source[self.stop :]

    def is_valid(self, source: bytes) -> bool:
        """Return whether the changed source still compiles; for Lua this is not checked."""
        if not self.path.endswith(".py"):
            return True
        try:
            compile(self.applied(source), self.path, "exec")
        except SyntaxError:
            return False
        return True

    def line(self, source: bytes) -> int:
        """Return the number of the first changed line, from 1."""
        return source.count(b"\n", 0, self.start) + 1

    def diff(self, source: bytes) -> str:
        """Return the change as a unified diff with little context."""
        before, after = source.decode(), self.applied(source).decode()
        lines = difflib.unified_diff(
            before.splitlines(), after.splitlines(), self.path, f"{self.path} ({self.kind})", n=1, lineterm=""
        )
        return "\n".join(lines)

    def lines(self, source: bytes) -> tuple[str, str]:
        """Return the changed lines before and after, without the common ones around, each stripped and joined."""
        before, after = source.decode().splitlines(), self.applied(source).decode().splitlines()
        first = next((at for at, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), 0)
        last = 0
        while last < min(len(before), len(after)) - first and before[-1 - last] == after[-1 - last]:
            last += 1
        return _joined(before[first : len(before) - last]), _joined(after[first : len(after) - last])


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines)
