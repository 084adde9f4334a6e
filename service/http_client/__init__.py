"""An HTTP/1.1 client: one exchange at a time on each connection, every wait bounded. See ADR 12 for why it is ours."""
