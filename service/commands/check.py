"""`taskgate check`: whether the configuration is good; with options, whether Redis and the upstream agree."""

import asyncio

from service.commands.configured import configured
from service.configuration import Loaded


def run(config: str, *, call: bool, alone: bool, redis: bool) -> int:
    """Print all faults and warnings, then what Redis refuses and what one call for each app brings.

    Return the exit status.

    `alone`: without Redis make the calls all the same, outside of the budget.
    """
    loaded = configured(config)
    if loaded is None:
        return 2
    print(f"ok: {_count(loaded)}")
    status = 0
    if redis:
        from service.commands.check_redis import try_redis

        status = asyncio.run(try_redis(loaded.settings))
    if call:
        from service.commands.check_call import call_all

        status = max(status, asyncio.run(call_all(loaded.settings, alone=alone)))
    return status


def _count(loaded: Loaded) -> str:
    apps, callers = len(loaded.settings.apps), len(loaded.settings.callers)
    return f"{apps} app{'s' * (apps != 1)}, {callers} caller{'s' * (callers != 1)}"
