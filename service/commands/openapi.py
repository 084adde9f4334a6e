"""`taskgate openapi`: the contract."""

import sys
from importlib import import_module


def run() -> int:
    """Print the OpenAPI document as indented JSON, identical at every call."""
    document: bytes = import_module("service.web.openapi.document").openapi_document()
    sys.stdout.buffer.write(document)
    return 0
