"""`taskgate check`: whether the configuration is good, and with `--call`, whether the upstream agrees."""

import asyncio

from service.commands.configured import configured
from service.configuration import Loaded


def run(config: str, *, call: bool, alone: bool) -> int:
    """Print all faults and warnings, then what one call for each app brings; return the exit status.

    `alone`: without Redis make the calls all the same, outside of the budget.
    """
    loaded = configured(config)
    if loaded is None:
        return 2
    print(f"ok: {_count(loaded)}")
    if not call:
        return 0
    from service.commands.check_call import call_all

    return asyncio.run(call_all(loaded.settings, alone=alone))


def _count(loaded: Loaded) -> str:
    apps, callers = len(loaded.settings.apps), len(loaded.settings.callers)
    return f"{apps} app{'s' * (apps != 1)}, {callers} caller{'s' * (callers != 1)}"
