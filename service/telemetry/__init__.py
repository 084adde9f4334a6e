"""Metrics, logs and traces. Nothing below `app.py` imports this package; other parts report to it through callables."""
