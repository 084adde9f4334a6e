"""The upstream's language: signing, regions, error codes, the wire format and the client."""
