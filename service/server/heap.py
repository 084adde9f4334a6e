"""Return memory that the C library retains between allocations still in use."""

import ctypes
from collections.abc import Callable


def heap_trimmer() -> Callable[[], None]:
    """Return a function that releases free heap pages to the system: glibc's `malloc_trim`, elsewhere a no-op."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return (lambda: None) if trim is None else (lambda: trim(0))
