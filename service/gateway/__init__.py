"""The use case: find or fetch the blocks that a request needs, and cut the page from them."""
