"""Watched lists: their versions, the changes from one to the next, and one loop per list."""
