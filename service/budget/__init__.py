"""Slots and turns: which caller may use one of an app's calls, and when. See docs/adr/ and `scheduler/`."""
