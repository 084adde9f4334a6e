"""Jobs without a cache, and blocks made of a text, for tests of lines."""

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
    """The parts of a job without a store: for a request that has seen no block and accepts any."""

    def __init__(self, block_key: str, *, known: bytes = b"") -> None:
        self.block_key = block_key
        self.known = known

    async def keep(self) -> None:
        """Return no block."""

    async def look(self) -> CachedBlock:
        """Return no block."""
        return NOTHING

    def accepts(self, found: CachedBlock) -> bool:
        """Accept any readable block except the one that the request has seen."""
        return found.stored is not None and found.head != self.known
