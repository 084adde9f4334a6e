"""Settings for tests of single parts, and the configured form of keys."""

import hashlib
from typing import Any

from service.settings import AppSettings, RedisSettings, Settings

SHOP = AppSettings(sdkappid=1, admin="a", secret_env="S")


def settings_of(**sections: Any) -> Settings:
    """Return settings with one app, no callers and a Redis that nobody opens, except for these sections."""
    defaults = {"apps": {"shop": SHOP}, "callers": {}, "redis": RedisSettings(url="redis://127.0.0.1")}
    return Settings(**(defaults | sections))


def hashed(key: str) -> str:
    """Return the form in which a key is configured."""
    return hashlib.sha256(key.encode()).hexdigest()
