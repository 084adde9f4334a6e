"""Turns over all replicas: scheduler.lua, its model in Python, and what replaces both while Redis is away."""
