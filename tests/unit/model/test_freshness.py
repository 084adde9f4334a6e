"""RFC 9111's request directives and RFC 5861's tolerance, as cases on the pure rule."""

import math
from typing import Any

import msgspec
import pytest

from service.model.blocks import Block, MissingTask, RefusedQuery, Stored
from service.model.freshness import CacheDirectives, Freshness, Lifetimes, age_s, judge, keep_for_ms
from service.model.queries import Range

LIFETIMES = Lifetimes(fresh_s=15, settled_s=600, refusal_s=60, stale_while_revalidate_s=60, stale_if_error_s=3600)
FRESH, RENEW, LAST_RESORT, USELESS = Freshness.FRESH, Freshness.RENEW, Freshness.LAST_RESORT, Freshness.USELESS


def _block(*, settled: bool = False) -> Block:
    range_ = Range(since_s=0, until_s=1)
    return Block(fetched_at_ms=0, range=range_, total=0, settled=settled, ends=(), body=b"")


def _judge(stored: Stored, age: float, directives: CacheDirectives | None = None) -> Freshness:
    return judge(stored, lifetimes=LIFETIMES, directives=directives or CacheDirectives(), now_ms=int(age * 1000))


@pytest.mark.parametrize(
    ("age", "verdict"),
    [
        (0, FRESH),
        (14.999, FRESH),
        (15, RENEW),
        (74.999, RENEW),
        (75, LAST_RESORT),
        (3614.999, LAST_RESORT),
        (3615, USELESS),
    ],
)
def test_a_block_ages_from_fresh_to_useless(age: float, verdict: Freshness) -> None:
    """Fresh for 15 s, then 60 s renewed in the background, then kept for an hour against errors."""
    assert _judge(_block(), age) is verdict


def test_a_settled_block_stays_fresh_longer() -> None:
    """Its lifetime is that of settled blocks, and its tolerance counts from there."""
    assert _judge(_block(settled=True), 599.9) is FRESH
    assert _judge(_block(settled=True), 600) is RENEW


@pytest.mark.parametrize(
    ("directives", "age", "verdict"),
    [
        (CacheDirectives(no_cache=True), 0, USELESS),
        (CacheDirectives(no_cache=True, stale_if_error_s=60), 0, LAST_RESORT),
        (CacheDirectives(max_age_s=5), 5, FRESH),
        (CacheDirectives(max_age_s=5), 5.001, USELESS),
        (CacheDirectives(max_age_s=0), 0.001, USELESS),
        (CacheDirectives(max_age_s=100), 20, LAST_RESORT),
        (CacheDirectives(max_age_s=100, max_stale_s=60), 20, RENEW),
        (CacheDirectives(max_age_s=19, max_stale_s=60), 20, LAST_RESORT),
        (CacheDirectives(max_stale_s=5), 19.9, RENEW),
        (CacheDirectives(max_stale_s=5), 20, LAST_RESORT),
        (CacheDirectives(max_stale_s=float("inf")), 3_000, RENEW),
        (CacheDirectives(max_stale_s=0), 15, LAST_RESORT),
        (CacheDirectives(min_fresh_s=5), 10, FRESH),
        (CacheDirectives(min_fresh_s=5), 10.001, USELESS),
        (CacheDirectives(min_fresh_s=16), 0, USELESS),
        (CacheDirectives(stale_if_error_s=10), 24.9, RENEW),
        (CacheDirectives(stale_if_error_s=70), 84.9, LAST_RESORT),
        (CacheDirectives(stale_if_error_s=70), 85, USELESS),
        (CacheDirectives(stale_if_error_s=2**31), 3_615, USELESS),
        (CacheDirectives(only_if_cached=True), 14, FRESH),
        (CacheDirectives(only_if_cached=True), 20, RENEW),
    ],
)
def test_cache_directives_bound_what_is_acceptable(directives: CacheDirectives, age: float, verdict: Freshness) -> None:
    """RFC 9111 section 5.2.1: each directive narrows or widens what is acceptable."""
    assert _judge(_block(), age, directives) is verdict


BOUNDS = {
    "": CacheDirectives(),
    "no-cache": CacheDirectives(no_cache=True),
    "max-age=5": CacheDirectives(max_age_s=5),
    "max-age=30": CacheDirectives(max_age_s=30),
    "min-fresh=10": CacheDirectives(min_fresh_s=10),
}
ALLOWANCES: dict[str, dict[str, Any]] = {
    "": {},
    "max-stale": {"max_stale_s": math.inf},
    "max-stale=60": {"max_stale_s": 60},
    "max-stale=0": {"max_stale_s": 0},
    "stale-if-error=60": {"stale_if_error_s": 60},
    "stale-if-error=0": {"stale_if_error_s": 0},
}
# What is served where the upstream fails or the turn is late, at these ages; the lifetime is 15 s, and the settings
# tolerate 60 s while renewing and an hour on errors.
AGES_S = (4, 8, 20, 100, 4000)
ON_FAILURE = {
    #                                   4      8      20     100    4000
    ("", ""): ("serve", "serve", "serve", "serve", "refuse"),
    ("", "max-stale"): ("serve", "serve", "serve", "serve", "serve"),
    ("", "max-stale=60"): ("serve", "serve", "serve", "serve", "refuse"),
    ("", "max-stale=0"): ("serve", "serve", "serve", "serve", "refuse"),
    ("", "stale-if-error=60"): ("serve", "serve", "serve", "refuse", "refuse"),
    ("", "stale-if-error=0"): ("serve", "serve", "serve", "refuse", "refuse"),
    ("no-cache", ""): ("refuse", "refuse", "refuse", "refuse", "refuse"),
    ("no-cache", "max-stale"): ("serve", "serve", "serve", "serve", "serve"),
    ("no-cache", "max-stale=60"): ("serve", "serve", "serve", "refuse", "refuse"),
    ("no-cache", "max-stale=0"): ("refuse", "refuse", "refuse", "refuse", "refuse"),
    ("no-cache", "stale-if-error=60"): ("serve", "serve", "serve", "refuse", "refuse"),
    ("no-cache", "stale-if-error=0"): ("refuse", "refuse", "refuse", "refuse", "refuse"),
    ("max-age=5", ""): ("serve", "refuse", "refuse", "refuse", "refuse"),
    ("max-age=5", "max-stale"): ("serve", "serve", "serve", "serve", "serve"),
    ("max-age=5", "max-stale=60"): ("serve", "serve", "serve", "refuse", "refuse"),
    ("max-age=5", "max-stale=0"): ("serve", "refuse", "refuse", "refuse", "refuse"),
    ("max-age=5", "stale-if-error=60"): ("serve", "serve", "serve", "refuse", "refuse"),
    ("max-age=5", "stale-if-error=0"): ("serve", "refuse", "refuse", "refuse", "refuse"),
    ("max-age=30", ""): ("serve", "serve", "serve", "refuse", "refuse"),
    ("max-age=30", "max-stale"): ("serve", "serve", "serve", "serve", "serve"),
    ("max-age=30", "max-stale=60"): ("serve", "serve", "serve", "refuse", "refuse"),
    ("max-age=30", "max-stale=0"): ("serve", "serve", "serve", "refuse", "refuse"),
    ("max-age=30", "stale-if-error=60"): ("serve", "serve", "serve", "refuse", "refuse"),
    ("max-age=30", "stale-if-error=0"): ("serve", "serve", "refuse", "refuse", "refuse"),
    ("min-fresh=10", ""): ("serve", "refuse", "refuse", "refuse", "refuse"),
    ("min-fresh=10", "max-stale"): ("serve", "serve", "serve", "serve", "serve"),
    ("min-fresh=10", "max-stale=60"): ("serve", "serve", "serve", "refuse", "refuse"),
    ("min-fresh=10", "max-stale=0"): ("serve", "refuse", "refuse", "refuse", "refuse"),
    ("min-fresh=10", "stale-if-error=60"): ("serve", "serve", "serve", "refuse", "refuse"),
    ("min-fresh=10", "stale-if-error=0"): ("serve", "refuse", "refuse", "refuse", "refuse"),
}


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("allowance", ALLOWANCES)
def test_the_callers_bounds_hold_whatever_fails(bound: str, allowance: str) -> None:
    """Nothing older than the request's own bound is served, unless the same request allows it."""
    directives = msgspec.structs.replace(BOUNDS[bound], **ALLOWANCES[allowance])
    served = tuple("refuse" if _judge(_block(), age, directives) is USELESS else "serve" for age in AGES_S)
    assert served == ON_FAILURE[bound, allowance]


@pytest.mark.parametrize(("age", "verdict"), [(0, FRESH), (59.9, FRESH), (60, USELESS)])
def test_a_remembered_refusal_is_never_served_stale(age: float, verdict: Freshness) -> None:
    """The upstream may accept tomorrow what it refused today."""
    assert _judge(RefusedQuery(fetched_at_ms=0, code=90104, text="no"), age) is verdict


def test_a_block_from_a_clock_ahead_of_ours_has_no_negative_age() -> None:
    """Another replica's clock may be a little ahead."""
    assert age_s(RefusedQuery(fetched_at_ms=5_000, code=90104, text="no"), now_ms=0) == 0.0


def test_servable_blocks_are_kept() -> None:
    """A block is kept until it is useless, a refusal until it is stale."""
    assert keep_for_ms(_block(), lifetimes=LIFETIMES) == 3_615_000
    assert keep_for_ms(RefusedQuery(fetched_at_ms=0, code=90104, text="no"), lifetimes=LIFETIMES) == 60_000


@pytest.mark.parametrize(
    "directives", [None, CacheDirectives(max_stale_s=math.inf), CacheDirectives(stale_if_error_s=9000)]
)
def test_a_block_from_the_future_is_never_served(directives: CacheDirectives | None) -> None:
    """A block dated further ahead than clocks may differ has no known age: not served even if no fetch is possible."""
    assert _judge(_block(), -1, directives) is FRESH
    assert _judge(_block(), -1.01, directives) is USELESS
    assert _judge(_block(settled=True), -3600, directives) is USELESS


@pytest.mark.parametrize(("age", "verdict"), [(0, FRESH), (14.999, FRESH), (15, USELESS), (3_000, USELESS)])
def test_a_missing_task_is_stored_as_long_as_a_block_is_fresh(age: float, verdict: Freshness) -> None:
    """That a task does not exist is never served stale: it may have been created since."""
    assert _judge(MissingTask(fetched_at_ms=0), age) is verdict
    assert _judge(MissingTask(fetched_at_ms=0), age, CacheDirectives(max_stale_s=math.inf)) is verdict
    assert keep_for_ms(MissingTask(fetched_at_ms=0), lifetimes=LIFETIMES) == 15_000
