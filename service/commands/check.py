"""`taskgate check`: validate the configuration; with options, also check Redis and the upstream."""

import asyncio

from service.commands.config_file import load_config
from service.configuration import LoadedSettings
from service.configuration.memory import MIB, container_limit, memory_model, memory_warning, total_bytes


def run(config: str, *, call: bool, alone: bool, redis: bool, memory_mib: int | None = None) -> int:
    """Print all faults and warnings, then what Redis refuses and the result of one call for each app.

    Return the exit status.

    `memory_mib` is the memory limit to compare the configuration with, by default this container's. With `alone`, make
    the calls even without Redis, outside of the budget.
    """
    loaded = load_config(config)
    if loaded is None:
        return 2
    print(f"ok: {_count(loaded)}")
    _print_memory(loaded, limit_bytes=container_limit() if memory_mib is None else memory_mib * MIB)
    status = 0
    if redis:
        from service.commands.check_redis import check_redis

        status = asyncio.run(check_redis(loaded.settings))
    if call:
        from service.commands.check_call import check_calls

        status = max(status, asyncio.run(check_calls(loaded.settings, alone=alone)))
    return status


def _print_memory(loaded: LoadedSettings, *, limit_bytes: int | None) -> None:
    model = memory_model(loaded.settings)
    print(f"memory: at most {total_bytes(model) // MIB} MiB")
    for use in model:
        print(f"  {use.max_bytes / MIB:6.1f} MiB  {use.part}{f' ({use.path})' if use.path else ''}")
    if (warning := memory_warning(loaded.settings, limit_bytes)) is not None:
        print(f"warning: memory: {warning}")


def _count(loaded: LoadedSettings) -> str:
    apps, callers = len(loaded.settings.apps), len(loaded.settings.callers)
    return f"{apps} app{'s' * (apps != 1)}, {callers} caller{'s' * (callers != 1)}"
