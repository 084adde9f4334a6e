"""Turns across all replicas: scheduler.lua, its model in Python, and the fallback for both while Redis is away."""
