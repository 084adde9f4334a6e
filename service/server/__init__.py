"""The HTTP/1.1 server around an ASGI app, and its lifecycle from start through drain to exit."""
