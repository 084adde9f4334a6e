"""Blocks in Redis, shared by all replicas, and in each replica's memory."""
