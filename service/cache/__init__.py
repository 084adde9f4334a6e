"""Blocks in Redis, shared by all replicas, and in the memory of each."""
