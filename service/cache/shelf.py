"""Where blocks are looked for: in this replica's memory, then in Redis."""

from typing import Protocol

import msgspec

from service.model.blocks import Stored


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Something stored, and its head: the bytes that tell this fetch of it from every other."""

    head: bytes
    stored: Stored


class Shelf(Protocol):
    """Stored blocks by name (app, query and index). `Shelf` methods that ask Redis raise StoreUnavailable."""
