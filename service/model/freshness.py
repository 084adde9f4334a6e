"""When a stored block may be served: RFC 9111 (sections 4.2 and 5.2.1), RFC 5861, and the settings."""

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


class Demands(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller's `Cache-Control` asks for (RFC 9111, 5.2.1; RFC 5861, 4); None where it says nothing.

    `max_stale_s` is infinite for a bare `max-stale`.
    """

    no_cache: bool = False
    max_age_s: int | None = None
    max_stale_s: float | None = None
    min_fresh_s: int | None = None
    only_if_cached: bool = False
    stale_if_error_s: int | None = None


class Verdict(StrEnum):
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


def judge(stored: Stored, *, lifetimes: Lifetimes, demands: Demands, now_ms: int) -> Verdict:
    """What may be done with `stored` for a request with these demands."""
    age = age_s(stored, now_ms=now_ms)
    lifetime = lifetimes.of(stored)
    staleness = age - lifetime
    if isinstance(stored, RefusedQuery) and staleness >= 0:
        return Verdict.USELESS
    wanted_age = lifetime if demands.max_age_s is None else min(lifetime, demands.max_age_s)
    fresh = age + (demands.min_fresh_s or 0) < wanted_age
    if fresh and not demands.no_cache:
        return Verdict.FRESH
    if isinstance(stored, RefusedQuery):
        return Verdict.USELESS
    if not demands.no_cache:
        if demands.max_stale_s is not None and demands.max_age_s is None and staleness <= demands.max_stale_s:
            return Verdict.RENEW
        steered = demands.max_age_s is not None or demands.min_fresh_s is not None
        if not steered and staleness < lifetimes.stale_while_revalidate_s:
            return Verdict.RENEW
    limit = lifetimes.stale_if_error_s if demands.stale_if_error_s is None else demands.stale_if_error_s
    if staleness < min(limit, lifetimes.stale_if_error_s):
        return Verdict.LAST_RESORT
    return Verdict.USELESS


def keep_for_ms(stored: Stored, *, lifetimes: Lifetimes) -> int:
    """How long to keep `stored` in Redis: as long as it may be served in any way."""
    tail = 0.0
    if isinstance(stored, Block):
        tail = max(lifetimes.stale_while_revalidate_s, lifetimes.stale_if_error_s)
    return max(int((lifetimes.of(stored) + tail) * 1000), 1)
