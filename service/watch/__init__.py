"""Lists that are watched: their versions, what changes from one to the next, and one loop for each list."""
