"""Taskgate: shares one rate-limited list of scheduled push tasks among many internal services."""

__version__ = "0.1.0"
"""The one place: the package, the image, the chart (`make chart`) and the contract follow it."""
