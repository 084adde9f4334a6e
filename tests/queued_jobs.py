"""What tests of lines ask for: jobs without a cache, and blocks that are a text."""

from service.model.blocks import HEAD_BYTES, NOTHING, Block, CachedBlock
from service.model.queries import Range


def cached(text: str) -> CachedBlock:
    """A stored block whose body and head are a text."""
    body = text.encode()
    block = Block(
        fetched_at_ms=0, range=Range(since_s=0, until_s=1), total=1, settled=False, ends=(len(body),), body=body
    )
    return CachedBlock(stored=block, head=body[:HEAD_BYTES])


def text_of(found: CachedBlock) -> str:
    """The text of such a block."""
    assert isinstance(found.stored, Block)
    return found.stored.body.decode()


class JobOfNothing:
    """The part of a job that stores nothing: a request that has seen nothing, and takes whatever it finds."""

    def __init__(self, block_key: str, *, known: bytes = b"") -> None:
        self.block_key = block_key
        self.known = known

    async def keep(self) -> None:
        """Nothing is stored."""

    async def look(self) -> CachedBlock:
        """Nothing is stored."""
        return NOTHING

    def accepts(self, found: CachedBlock) -> bool:
        """Any readable block but the one that the request has seen."""
        return found.stored is not None and found.head != self.known
