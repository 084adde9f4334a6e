"""Slots and turns: who may use one of an app's calls, and when. See docs/adr/ and `scheduler.lua`."""
