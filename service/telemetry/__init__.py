"""Signals: metrics, logs, traces. Nothing below `app.py` imports it; the parts tell it what happens by callables."""
