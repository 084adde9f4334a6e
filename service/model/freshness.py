"""The rules on serving stored blocks: RFC 9111 (sections 4.2 and 5.2.1), RFC 5861, and the settings."""

import math
from enum import StrEnum

import msgspec

from service.model.blocks import Block, RefusedQuery, Stored


class Lifetimes(msgspec.Struct, frozen=True, kw_only=True):
    """How long stored blocks are fresh, and how long after that they may still be served; in seconds.

    A refusal lives for `refusal_s`, the answer that there is no such task for `fresh_s`; neither is served stale.
    """

    fresh_s: float
    settled_s: float
    refusal_s: float
    stale_while_revalidate_s: float
    stale_if_error_s: float

    def of(self, stored: Stored) -> float:
        """Return the freshness lifetime in seconds."""
        match stored:
            case RefusedQuery():
                return self.refusal_s
            case Block(settled=True):
                return self.settled_s
        return self.fresh_s


class CacheDirectives(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's `Cache-Control` directives (RFC 9111, 5.2.1; RFC 5861, 4); None for those not given.

    `max_stale_s` is infinite for a bare `max-stale`. With `is_force_denied` the caller bounded the age without
    permission to do so: its bounds are not included.
    """

    no_cache: bool = False
    max_age_s: int | None = None
    max_stale_s: float | None = None
    min_fresh_s: int | None = None
    only_if_cached: bool = False
    stale_if_error_s: int | None = None
    is_force_denied: bool = False

    @property
    def bounds_age(self) -> bool:
        """Whether a fresh answer may be rejected for its age."""
        return self.no_cache or self.max_age_s is not None or self.min_fresh_s is not None


class Freshness(StrEnum):
    """What may be done with a stored block."""

    FRESH = "fresh"
    """Serve it."""
    RENEW = "renew"
    """Serve it, and refresh it in the background."""
    LAST_RESORT = "last-resort"
    """Serve it only if no fetch is possible."""
    USELESS = "useless"
    """Never serve it for this request."""


class StaleReason(StrEnum):
    """Why a stale block was served."""

    RENEWING = "renewing"
    """Within `stale_while_revalidate`, or the caller accepts stale answers."""
    ERROR = "error"
    """The upstream or Redis failed."""
    WAIT = "wait"
    """The turn would have come after the caller's patience."""


FUTURE_MS = 1_000
"""How far replicas' readings of the shared clock may differ. The age of a block dated further ahead is unknown."""


def age_s(stored: Stored, *, now_ms: int) -> float:
    """Return the seconds since the fetch; never negative, although replicas' readings of the clock differ a little."""
    return max(now_ms - stored.fetched_at_ms, 0) / 1000


def judge(stored: Stored, *, lifetimes: Lifetimes, directives: CacheDirectives, now_ms: int) -> Freshness:
    """Return what may be done with `stored` for a request with these directives.

    The caller's bounds from `no-cache`, `max-age` or `min-fresh` hold even if no fetch is possible, unless the same
    request allows more with `max-stale` or `stale-if-error`.
    """
    if isinstance(stored, Block) and stored.unfinished:
        return Freshness.USELESS
    if stored.fetched_at_ms > now_ms + FUTURE_MS:
        return Freshness.USELESS
    age = age_s(stored, now_ms=now_ms)
    lifetime = lifetimes.of(stored)
    is_acceptable = _is_acceptable(age, lifetime, directives)
    if is_acceptable and age < lifetime:
        return Freshness.FRESH
    if not isinstance(stored, Block):
        return Freshness.USELESS
    staleness = age - lifetime
    if is_acceptable and staleness < _tolerated_s(lifetimes, directives):
        return Freshness.RENEW
    if staleness < _allowed_on_error_s(lifetimes, directives):
        return Freshness.LAST_RESORT
    if is_acceptable and directives.stale_if_error_s is None and staleness < lifetimes.stale_if_error_s:
        return Freshness.LAST_RESORT
    return Freshness.USELESS


def _is_acceptable(age: float, lifetime: float, directives: CacheDirectives) -> bool:
    """Return whether the caller's directives, apart from staleness, allow the stored answer."""
    if directives.no_cache or (directives.max_age_s is not None and age > directives.max_age_s):
        return False
    return directives.min_fresh_s is None or lifetime - age >= directives.min_fresh_s


def _tolerated_s(lifetimes: Lifetimes, directives: CacheDirectives) -> float:
    """Return how stale an answer may be, in seconds, while a fetch renews it."""
    if directives.max_stale_s is not None:
        return directives.max_stale_s
    return 0.0 if directives.bounds_age else lifetimes.stale_while_revalidate_s


def _allowed_on_error_s(lifetimes: Lifetimes, directives: CacheDirectives) -> float:
    """Return how stale an answer the request itself allows without a fetch, in seconds; -inf if it allows none.

    A directive of 0 allows nothing: with `no-cache, stale-if-error=0` not even a fresh answer.
    """
    stale_if_error_s = min(directives.stale_if_error_s or 0, lifetimes.stale_if_error_s)
    return max(stale_if_error_s, directives.max_stale_s or 0) or -math.inf


def longest_ms(lifetimes: Lifetimes) -> int:
    """Return the longest time for which any block is kept in Redis."""
    tail_s = max(lifetimes.stale_while_revalidate_s, lifetimes.stale_if_error_s)
    return max(int((max(lifetimes.fresh_s, lifetimes.settled_s) + tail_s) * 1000), 1)


def keep_for_ms(stored: Stored, *, lifetimes: Lifetimes) -> int:
    """Return how long to keep `stored` in Redis: as long as it may be served in any way."""
    tail = 0.0
    if isinstance(stored, Block):
        tail = max(lifetimes.stale_while_revalidate_s, lifetimes.stale_if_error_s)
    return max(int((lifetimes.of(stored) + tail) * 1000), 1)
