"""Apply changed configuration files at run time. A bad file is rejected whole, and the old one stays in use."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import msgspec
import structlog

from service.configuration import ConfigurationError, LoadedSettings, load
from service.configuration.start_files import digests_of, start_files_of
from service.http_client.threads import OwnThread
from service.settings import Settings

POLL_INTERVAL_S = 1.0

LIVE = frozenset(
    (
        "callers",
        "service_accounts",
        "budget.wait_default_s",
        "budget.wait_max_s",
        "budget.waiting_max",
        "cache.fresh_s",
        "cache.settled_s",
        "cache.refusal_s",
        "cache.stale_while_revalidate_s",
        "cache.stale_if_error_s",
        "query",
    )
)
"""Paths that a reload applies at once, like the removal of apps and of `auth: none`; everything else needs a
restart."""

FileStates = tuple[tuple[int, ...], ...]
"""The identity of each file at the last check, links followed: a swapped link leads to another inode."""


class OnReload(Protocol):
    """Called after each reload; must not block."""

    def __call__(self, *, ok: bool, needs_restart: bool) -> None:
        """`ok` says whether the configuration was applied or rejected.

        `needs_restart` says whether what was last applied has changes that take effect only at a restart.
        """
        ...


log = structlog.get_logger("taskgate.settings")


class ConfigurationWatcher:
    """Watch the configuration's files and apply changes."""

    def __init__(
        self,
        path: str,
        environ: Mapping[str, str],
        *,
        running: Settings,
        apply: Callable[[Settings], None],
        on_reload: OnReload | None = None,
    ) -> None:
        """`apply` applies valid settings in one step; `on_reload` is called after each reload."""
        self._path = path
        self._environ = environ
        self._running = running
        self._apply = apply
        self._on_reload = on_reload
        self._thread = OwnThread()
        self._start_files = digests_of(running)
        self._needs_restart = False
        self._files = (path, *files_of(running))
        self._seen = file_states(self._files)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Check every second while the context is entered."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def check(self) -> None:
        """Apply the configuration if one of its files has changed since the last check."""
        seen = await self._thread.run(file_states, self._files)
        if seen == self._seen:
            return
        self._seen = seen  # the state before reading: a change made while it is read is seen by the next check
        try:
            loaded = await self._thread.run(load, self._path, self._environ)
            self._apply(self._without_open_access(loaded.settings))
        except ConfigurationError as exc:
            self._report(ok=False)
            faults = [str(fault) for fault in exc.faults]
            log.error("settings.refused", faults=faults)  # noqa: TRY400 - the faults say it all
            return
        self._accept(loaded, await self._thread.run(digests_of, loaded.settings))

    def _accept(self, loaded: LoadedSettings, start_files: Mapping[str, bytes]) -> None:
        settings = loaded.settings
        self._files = (self._path, *files_of(settings))
        self._seen = (*self._seen[:1], *file_states(self._files[1:]))
        changed = (path for path, digest in start_files.items() if self._start_files.get(path, digest) != digest)
        pending = (*self._needing_restart(settings), *changed)
        self._needs_restart = bool(pending)
        self._report(ok=True)
        log.info("settings.reloaded", apps=len(settings.apps), callers=len(settings.callers))
        for warning in loaded.warnings:
            log.warning("settings.warning", path=warning.path, text=warning.text)
        if pending:
            log.warning("settings.restart_needed", paths=pending)

    def _report(self, *, ok: bool) -> None:
        if self._on_reload is not None:
            self._on_reload(ok=ok, needs_restart=self._needs_restart)

    def _without_open_access(self, settings: Settings) -> Settings:
        """Return the settings, but never with `auth: none` unless the process was started with it."""
        if settings.auth == "none" != self._running.auth:
            return msgspec.structs.replace(settings, auth="callers")
        return settings

    def _needing_restart(self, settings: Settings) -> Iterator[str]:
        """Yield the changes that take effect only at a restart."""
        removed = {f"apps.{name}" for name in self._running.apps if name not in settings.apps}
        for path in changed_paths(self._running, settings):
            is_closing = path == "auth" and settings.auth == "callers"
            if not (is_closing or path in removed or _is_live(path)):
                yield path

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            try:
                await self.check()
            except Exception as exc:
                self._report(ok=False)
                log.error("settings.failed", exc_info=exc)  # noqa: TRY400 - one shape for all of our logs


def files_of(settings: Settings) -> tuple[str, ...]:
    """Return the files that the settings point to, whose faults a reload should report."""
    tokens = settings.service_accounts
    named = [*start_files_of(settings).values(), *(app.secret_file for app in settings.apps.values())]
    if tokens is not None:
        named += [tokens.jwks_file, tokens.ca_file]
    return tuple(dict.fromkeys(path for path in named if path is not None))


def file_states(paths: tuple[str, ...]) -> FileStates:
    """Return the current identity of each file; a missing file has none."""
    return tuple(_file_state(path) for path in paths)


def changed_paths(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield the paths at which two settings differ, as far down as both have the same shape."""
    match old, new:
        case msgspec.Struct(), msgspec.Struct() if type(old) is type(new):
            for name in old.__struct_fields__:
                yield from changed_paths(getattr(old, name), getattr(new, name), f"{path}.{name}" if path else name)
        case dict(), dict():
            for name in (*old, *(name for name in new if name not in old)):
                yield from changed_paths(old.get(name), new.get(name), f"{path}.{name}")
        case _ if old != new:
            yield path


def _is_live(path: str) -> bool:
    parts = path.split(".")
    return any(".".join(parts[:length]) in LIVE for length in (1, 2))


def _file_state(path: str) -> tuple[int, ...]:
    try:
        stat = os.stat(path)
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size
