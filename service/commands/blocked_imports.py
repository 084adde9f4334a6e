"""Starts sooner: keeps libraries from importing what they would use where it happens to be installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Meanwhile importing these fails as if they were not installed; those that are imported already are left."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is what the import system takes for that
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
