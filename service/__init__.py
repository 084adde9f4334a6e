"""Taskgate: shares one rate-limited list of scheduled push tasks among many internal services."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("taskgate")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0+checkout"
