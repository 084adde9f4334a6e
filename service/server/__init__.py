"""The HTTP/1.1 server around an ASGI app, and its life from start through drain to exit."""
