"""The budget as header fields."""

import pytest

from service.model.budgets import BudgetNote
from service.web.headers.ratelimit import ratelimit
from service.web.problems.from_errors import retry_after


@pytest.mark.parametrize(
    ("note", "policy", "state"),
    [
        (BudgetNote(calls=5, window_s=1.0, free=5, reset_s=0.0), b'"shop";q=5;w=1', b'"shop";r=5;t=0'),
        (BudgetNote(calls=5, window_s=0.2, free=-1, reset_s=0.01), b'"shop";q=5;w=1', b'"shop";r=0;t=1'),
        (BudgetNote(calls=5, window_s=1.5, free=9, reset_s=-3.0), b'"shop";q=5;w=2', b'"shop";r=5;t=0'),
    ],
)
def test_fields_have_whole_seconds(note: BudgetNote, policy: bytes, state: bytes) -> None:
    """Fields hold whole seconds, rounded up, within their bounds."""
    assert ratelimit("shop", note) == ((b"ratelimit-policy", policy), (b"ratelimit", state))


@pytest.mark.parametrize(
    ("seconds", "field"), [(0, 1), (-5, 1), (1, 1), (1.001, 2), (float("inf"), 86_400), (float("nan"), 86_400)]
)
def test_retry_after_is_a_whole_number(seconds: float, field: int) -> None:
    """`Retry-After` is a whole number from 1 second to a day, and never earlier than meant."""
    assert retry_after(seconds) == field
