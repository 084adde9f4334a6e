"""The upstream's API: signing, regions, error codes, the wire format and the client."""
