"""Shorten the start: keep libraries from importing optional packages that happen to be installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Make imports of these packages fail in the context, except for those already imported."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is what the import system takes for that
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
