"""Granian around the ASGI application: from start through drain to exit."""
