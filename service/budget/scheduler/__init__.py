"""Turns across all replicas: a script in Redis, its model in Python, and the fallback for both while Redis is away."""
