"""The settings of the HTTP side, resolved: moments are parsed, bounds are numbers."""

import msgspec

from service.model.queries import Moment, parse_moment, parse_until
from service.settings import BudgetSettings, CacheSettings, QuerySettings, Settings, WatchSettings

LIMIT_MAX = 100
LIMIT_DEFAULT = 20
OFFSET_END = 2**31 - 1
"""Upper bound of offsets and of ends of slices: the upstream's integers are assumed to have 32 bits."""


class WebSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults and bounds of requests. `wait_default_s` is the patience in seconds without `Prefer: wait`.

    `compressed_max_bytes` bounds the cache of compressed bodies, which is separate from the response cache.
    """

    block_size: int
    align_s: int
    since: Moment
    until: Moment
    range_max_days: int | None
    filter_max_blocks: int
    wait_default_s: float
    stream_max_parts: int
    stream_max_tasks: int
    compressed_max_bytes: int
    watch_idle_s: float

    @property
    def limit_max(self) -> int:
        """The maximum `limit`: a slice must fit into two blocks."""
        return min(LIMIT_MAX, self.block_size)

    @property
    def limit_default(self) -> int:
        """The default `limit`."""
        return min(LIMIT_DEFAULT, self.block_size)

    @property
    def offset_max(self) -> int:
        """The maximum `offset`: a whole block beyond it must still have a 32-bit offset."""
        return OFFSET_END - self.block_size


def web_settings(settings: Settings) -> WebSettings:
    """Return the HTTP part of the settings. Raise ValueError if a default moment can't be parsed."""
    return _resolve(settings.budget, settings.cache, settings.query, settings.watch)


def default_web_settings() -> WebSettings:
    """Return the settings of a configuration without an HTTP section; the contract documents these."""
    return _resolve(BudgetSettings(), CacheSettings(), QuerySettings(), WatchSettings())


def _resolve(budget: BudgetSettings, cache: CacheSettings, query: QuerySettings, watch: WatchSettings) -> WebSettings:
    return WebSettings(
        block_size=cache.block_size,
        align_s=cache.align_s,
        since=parse_moment(query.since),
        until=parse_until(query.until),
        range_max_days=query.range_max_days,
        filter_max_blocks=query.filter_max_blocks,
        wait_default_s=budget.wait_default_s,
        stream_max_parts=query.stream_max_parts,
        stream_max_tasks=query.stream_max_tasks,
        compressed_max_bytes=cache.answers_bytes // 4,
        watch_idle_s=watch.idle_s,
    )
