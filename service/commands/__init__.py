"""The commands of `taskgate`, one module each. They return an exit status: 0, 1 for failures, 2 for invalid input."""
