"""What the HTTP side needs of the settings, resolved: moments are parsed, bounds are numbers."""

import msgspec

from service.model.queries import Moment, parse_moment, parse_until
from service.settings import BudgetSettings, CacheSettings, QuerySettings, Settings, WatchSettings

LIMIT_MAX = 100
LIMIT_DEFAULT = 20
OFFSET_END = 2**31 - 1
"""Offsets and what they lead to stay below this: the upstream's integers are taken to be 32 bits wide."""


class WebSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults and bounds of a request. `wait_default_s` is the patience of a caller who names none, in seconds.

    `compressed_max_bytes` bounds the compressed bodies that are kept, beside the finished answers.
    """

    block_size: int
    align_s: int
    since: Moment
    until: Moment
    range_max_days: int | None
    filter_max_blocks: int
    wait_default_s: float
    stream_max_tasks: int
    compressed_max_bytes: int
    watch_idle_s: float

    @property
    def limit_max(self) -> int:
        """The largest `limit`: a slice must fit into two blocks."""
        return min(LIMIT_MAX, self.block_size)

    @property
    def limit_default(self) -> int:
        """The `limit` of a caller who names none."""
        return min(LIMIT_DEFAULT, self.block_size)

    @property
    def offset_max(self) -> int:
        """The largest `offset`: a whole block beyond it still has a 32-bit offset."""
        return OFFSET_END - self.block_size


def web_settings(settings: Settings) -> WebSettings:
    """What of the whole settings concerns HTTP. Raises ValueError where a default moment can't be read."""
    return _resolved(settings.budget, settings.cache, settings.query, settings.watch)


def default_web_settings() -> WebSettings:
    """The settings of a configuration that says nothing about HTTP: what the contract documents."""
    return _resolved(BudgetSettings(), CacheSettings(), QuerySettings(), WatchSettings())


def _resolved(budget: BudgetSettings, cache: CacheSettings, query: QuerySettings, watch: WatchSettings) -> WebSettings:
    return WebSettings(
        block_size=cache.block_size,
        align_s=cache.align_s,
        since=parse_moment(query.since),
        until=parse_until(query.until),
        range_max_days=query.range_max_days,
        filter_max_blocks=query.filter_max_blocks,
        wait_default_s=budget.wait_default_s,
        stream_max_tasks=query.stream_max_tasks,
        compressed_max_bytes=cache.answers_bytes // 4,
        watch_idle_s=watch.idle_s,
    )
