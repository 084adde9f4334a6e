"""`taskgate openapi`: the contract."""

import sys
from importlib import import_module

import msgspec


def run() -> int:
    """Print the OpenAPI document as JSON, indented."""
    document = import_module("service.web").openapi_document()
    raw = document if isinstance(document, bytes) else msgspec.json.encode(document)
    sys.stdout.write(msgspec.json.format(raw, indent=2).decode().rstrip("\n") + "\n")
    return 0
