"""What is wrong with a configuration, told by path. No text ever repeats a value that could be a secret."""

from collections.abc import Iterable

import msgspec


class SettingFault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong: where (a path in the file, a variable, or the file itself) and what."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class ConfigurationError(Exception):
    """A configuration that can't be used, every fault of it, and the warnings found on the way."""

    def __init__(self, faults: Iterable[SettingFault], warnings: Iterable[SettingFault] = ()) -> None:
        self.faults = tuple(faults)
        self.warnings = tuple(warnings)
        super().__init__("\n".join(map(str, self.faults)))
