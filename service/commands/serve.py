"""`taskgate serve`: the gateway."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from service.commands.config_file import VARIABLE, load_config
from service.configuration.memory import container_limit, memory_warning

NOT_NEEDED = ("annotated_types", "attr", "attrs", "click", "pydantic", "pygments", "rich")
"""What Litestar, httpx and structlog import for their own models and for terminals: 0.2 s of the start."""


def run(config: str | None) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    loaded = load_config(config, print_warnings=False)  # they go to the log
    if loaded is None:
        return 2
    gc.disable()  # little of what imports create is ever garbage: docs/adr/0014-faster-start.md
    with blocked_imports(*NOT_NEEDED, "opentelemetry"):  # not by redis-py, that is: our traces import it if enabled
        import structlog

        from service.app import create_app
        from service.observe.access_log import AccessLog, log_requests
        from service.server.asgi import StartFailed
        from service.server.lifecycle import serve
        from service.server.listening import CannotListen
        from service.telemetry.logs import configure

    gc.freeze()
    gc.enable()

    server = loaded.settings.server
    as_json = server.log_format == "json" or (server.log_format == "auto" and not sys.stderr.isatty())
    writer = configure(server.log_level, as_json=as_json)
    is_batched = as_json and server.log_level in ("debug", "info")
    for warning in loaded.warnings:
        structlog.get_logger("taskgate.settings").warning("settings.warning", path=warning.path, text=warning.text)
    if (short := memory_warning(loaded.settings, container_limit())) is not None:
        structlog.get_logger("taskgate.settings").warning("settings.warning", path="server", text=short)
    try:
        access_log = AccessLog(writer.write) if is_batched else log_requests
        with blocked_imports(*NOT_NEEDED):
            service = create_app(loaded.settings, access_log=access_log, config_path=os.environ[VARIABLE])
        serve(
            service.asgi,
            server,
            response_cache=service.response_cache,
            refusal=service.refusal,
            hooks=service,
            on_server=service.on_server,
        )
    except CannotListen as exc:
        print(f"taskgate serve: can't listen: {exc}", file=sys.stderr)
        return 1
    except StartFailed as exc:
        print(f"taskgate serve: {exc}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def blocked_imports(*packages: str) -> Iterator[None]:
    """Make imports of these packages fail in the context, except for those already imported.

    So libraries do not import optional packages that happen to be installed.
    """
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is what the import system takes for that
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
