"""Each rule of the repository detects its fault."""

from pathlib import Path

from tools.check_tree import (
    BINARY_MAX_BYTES,
    LARGE_BINARIES,
    LINES_MAX,
    dangling_references,
    duplicate_names,
    large_binaries,
    long_files,
    unindexed_decisions,
)


def test_large_binaries_are_found(tmp_path: Path) -> None:
    """A large binary is found, a large text and a small binary are not; a name on the list needs its file."""
    (tmp_path / "wheel.whl").write_bytes(b"PK\0" + b"x" * BINARY_MAX_BYTES)
    (tmp_path / "text.txt").write_bytes(b"x" * (BINARY_MAX_BYTES + 1))
    (tmp_path / "small.png").write_bytes(b"\0" * 100)
    faults = list(large_binaries(tmp_path, ["wheel.whl", "text.txt", "small.png", *LARGE_BINARIES]))
    assert [fault.partition(":")[0] for fault in faults] == ["wheel.whl"]
    faults = list(large_binaries(tmp_path, ["text.txt"]))
    assert [fault.partition(":")[0] for fault in faults] == sorted(LARGE_BINARIES)
    assert not list(large_binaries(tmp_path, []))


def test_long_files_are_found(tmp_path: Path) -> None:
    """A long file of Python or Lua is found; a long text is not."""
    for name in ("long.lua", "long.py", "text.md"):
        (tmp_path / name).write_text("x\n" * (LINES_MAX + 1))
    (tmp_path / "short.py").write_text("x\n" * LINES_MAX)
    faults = list(long_files(tmp_path, ["long.lua", "long.py", "text.md", "short.py"]))
    assert [fault.partition(":")[0] for fault in faults] == ["long.lua", "long.py"]


def test_names_defined_twice_are_found(tmp_path: Path) -> None:
    """Two classes, functions or types of one name are found with their places; private ones may share a name."""
    (tmp_path / "one.py").write_text("class Slot:\n    class Told: ...\nSend = list[int]\nMAX = 1\nT = 1\n_own = 1\n")
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "two.py").write_text(
        "class Told:\n    def see(self): ...\ndef Send(): ...\nMAX = 1\nT = 1\nclass _Own: ...\ndef run(): ...\n"
    )
    (tmp_path / "three.py").write_text("class _Own: ...\ndef run(): ...\ndef see(): ...\n")
    assert list(duplicate_names(tmp_path)) == [
        "Send has 2 definitions: one.py:3, room/two.py:3",
        "Told has 2 definitions: one.py:2, room/two.py:1",
    ]


def test_decisions_missing_from_the_index_are_found(tmp_path: Path) -> None:
    """Each decision has a status, and the index the same one."""
    (tmp_path / "0001-one.md").write_text("# 1. One\n\n**Status:** accepted.\n")
    (tmp_path / "0002-two.md").write_text("# 2. Two\n\n**Status:** superseded by [ADR 1](0001-one.md).\n")
    (tmp_path / "0003-three.md").write_text("# 3. Three\n")
    (tmp_path / "0004-four.md").write_text("# 4. Four\n\n**Status:** accepted.\n")
    rows = ("| 1 | [One](0001-one.md) | accepted |", "| 2 | [Two](0002-two.md) | superseded by 1 |")
    (tmp_path / "README.md").write_text("\n".join((*rows, "| 4 | [Four](0004-four.md) | superseded by 1 |")))
    faults = list(unindexed_decisions(tmp_path))
    assert [fault.partition(":")[0] for fault in faults] == ["0003-three.md", "0004-four.md"]


def test_names_of_missing_files_and_tests_are_found(tmp_path: Path) -> None:
    """Every file or test named in a text must exist; below `tests/`, the short form is accepted, too."""
    files = {
        "README.md": "See `tests/unit/test_one.py::test_it`, unit/test_one.py::test_that and docs/gone.md.",
        "docs/old.md": "**Status:** superseded by [ADR 1](one.md)\n`service/gone.py` was one file.",
        "CHANGELOG.md": "`service/gone.py` is gone.",
        "tests/unit/test_one.py": "def test_it() -> None: ...\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert list(dangling_references(tmp_path, files)) == [
        "README.md: unit/test_one.py has no test_that",
        "README.md: docs/gone.md does not exist",
    ]
