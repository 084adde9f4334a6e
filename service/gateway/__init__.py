"""The use case: which blocks a request needs, stored or fetched, and the page cut from them."""
