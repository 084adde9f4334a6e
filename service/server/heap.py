"""Gives memory back that the C library keeps between what is still in use."""

import ctypes
from collections.abc import Callable


def heap_trimmer() -> Callable[[], None]:
    """Return what gives free pages of the heap back to the system: glibc's `malloc_trim`; elsewhere it does nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return (lambda: None) if trim is None else (lambda: trim(0))
