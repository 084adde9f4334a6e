"""The policy of turns as a plain state machine: the same steps as the script in script/, in files of the same names.

Reads no clock and does no I/O. `LocalScheduler` runs on it, and tests use it as the oracle for the script. All times in
the state are milliseconds on a clock of its own that never goes back and never runs ahead.
"""
