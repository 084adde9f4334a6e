"""When a stored block may be served: RFC 9111 (sections 4.2 and 5.2.1), RFC 5861, and the settings."""

import math
from enum import StrEnum

import msgspec

from service.model.blocks import Block, RefusedQuery, Stored


class Lifetimes(msgspec.Struct, frozen=True, kw_only=True):
    """For how long what is stored is fresh, and for how long after that it may still be served; in seconds."""

    fresh_s: float
    settled_s: float
    refusal_s: float
    stale_while_revalidate_s: float
    stale_if_error_s: float

    def of(self, stored: Stored) -> float:
        """Freshness lifetime in seconds."""
        match stored:
            case RefusedQuery():
                return self.refusal_s
            case Block(settled=True):
                return self.settled_s
        return self.fresh_s


class CacheDirectives(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller's `Cache-Control` asks for (RFC 9111, 5.2.1; RFC 5861, 4); None where it says nothing.

    `max_stale_s` is infinite for a bare `max-stale`.
    """

    no_cache: bool = False
    max_age_s: int | None = None
    max_stale_s: float | None = None
    min_fresh_s: int | None = None
    only_if_cached: bool = False
    stale_if_error_s: int | None = None


class Freshness(StrEnum):
    """What may be done with something stored."""

    FRESH = "fresh"
    """Serve it."""
    RENEW = "renew"
    """Serve it, and renew it in the background."""
    LAST_RESORT = "last-resort"
    """Serve it only where no fetch can be had."""
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


def age_s(stored: Stored, *, now_ms: int) -> float:
    """Seconds since the fetch; clocks of replicas differ a little, so never below zero."""
    return max(now_ms - stored.fetched_at_ms, 0) / 1000


def judge(stored: Stored, *, lifetimes: Lifetimes, directives: CacheDirectives, now_ms: int) -> Freshness:
    """What may be done with `stored` for a request with these directives."""
    if isinstance(stored, Block) and stored.unfinished:
        return Freshness.USELESS
    age = age_s(stored, now_ms=now_ms)
    lifetime = lifetimes.of(stored)
    if _is_acceptable(age, lifetime, directives):
        if age < lifetime:
            return Freshness.FRESH
        if isinstance(stored, Block) and age - lifetime < _tolerated_s(lifetimes, directives):
            return Freshness.RENEW
    if isinstance(stored, Block) and age - lifetime < _tolerated_on_error_s(lifetimes, directives):
        return Freshness.LAST_RESORT
    return Freshness.USELESS


def _is_acceptable(age: float, lifetime: float, directives: CacheDirectives) -> bool:
    """Whether the caller's wishes, staleness apart, allow the stored answer."""
    if directives.no_cache or (directives.max_age_s is not None and age > directives.max_age_s):
        return False
    return directives.min_fresh_s is None or lifetime - age >= directives.min_fresh_s


def _tolerated_s(lifetimes: Lifetimes, directives: CacheDirectives) -> float:
    """How stale an answer may be, in seconds, while a fetch renews it."""
    if directives.max_stale_s is not None:
        return directives.max_stale_s
    steered = directives.max_age_s is not None or directives.min_fresh_s is not None
    return 0.0 if steered else lifetimes.stale_while_revalidate_s


def _tolerated_on_error_s(lifetimes: Lifetimes, directives: CacheDirectives) -> float:
    """How stale an answer may be, in seconds, where no fetch can be had; for `no-cache` alone never."""
    if directives.stale_if_error_s is not None:
        return min(directives.stale_if_error_s, lifetimes.stale_if_error_s)
    return -math.inf if directives.no_cache else lifetimes.stale_if_error_s


def keep_for_ms(stored: Stored, *, lifetimes: Lifetimes) -> int:
    """How long to keep `stored` in Redis: as long as it may be served in any way."""
    tail = 0.0
    if isinstance(stored, Block):
        tail = max(lifetimes.stale_while_revalidate_s, lifetimes.stale_if_error_s)
    return max(int((lifetimes.of(stored) + tail) * 1000), 1)
