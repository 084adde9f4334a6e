"""Configuration faults, identified by path. No text ever repeats a value that could be a secret."""

from collections.abc import Iterable

import msgspec


class SettingFault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: where (a path in the file, a variable, or the file itself) and what."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class ConfigurationError(Exception):
    """An unusable configuration, with all its faults."""

    def __init__(self, faults: Iterable[SettingFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))
