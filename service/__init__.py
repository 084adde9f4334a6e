"""Taskgate: shares one rate-limited list of scheduled push tasks among many internal services."""

__version__: str


def __getattr__(name: str) -> str:
    """`__version__`, read when it is asked for: what reads it takes longer to import than most commands take to run."""
    if name != "__version__":
        raise AttributeError(name)
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - see above

    try:
        return version("taskgate")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0+checkout"
