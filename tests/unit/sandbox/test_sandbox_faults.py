"""Which calls a fault applies to."""

import random

import msgspec
import pytest

from service.sandbox.faults import FAULTS_MAX, ErrorCode, Faults, Hang, HttpStatus, Latency, SandboxFault


def _codes(faults: Faults, calls: int, *, sdkappid: int = 1) -> list[int]:
    endings = (faults.inject(sdkappid).ending for _ in range(calls))
    return [ending.code if isinstance(ending, ErrorCode) else 0 for ending in endings]


def test_a_fault_affects_only_the_next_calls() -> None:
    """A fault for the next n calls affects those and is then removed."""
    faults = Faults(random.Random(1))
    faults.add(ErrorCode(code=7, calls=2))
    assert _codes(faults, 4) == [7, 7, 0, 0]
    assert faults.armed == ()


def test_a_fault_applies_to_every_kth_call() -> None:
    """A fault for every third call applies to the third, sixth and so on, `calls` times in all."""
    faults = Faults(random.Random(1))
    faults.add(ErrorCode(code=7, every=3, calls=2))
    assert _codes(faults, 10) == [0, 0, 7, 0, 0, 7, 0, 0, 0, 0]


def test_a_fault_applies_to_a_share_of_the_calls() -> None:
    """A fault for a fifth of the calls applies to about a fifth of them, the same ones for the same seed."""
    one, other = Faults(random.Random(3)), Faults(random.Random(3))
    for faults in (one, other):
        faults.add(ErrorCode(code=7, share=0.2))
    failed = _codes(one, 2000)
    assert 300 < failed.count(7) < 500
    assert _codes(other, 2000) == failed


def test_a_fault_of_one_app_leaves_others_alone() -> None:
    """A fault of one app leaves the others alone."""
    faults = Faults(random.Random(1))
    faults.add(ErrorCode(code=7, sdkappid=2))
    assert _codes(faults, 2, sdkappid=1) == [0, 0]
    assert _codes(faults, 2, sdkappid=2) == [7, 7]


def test_faults_take_turns_and_latencies_add_up() -> None:
    """The oldest ending decides and the next one keeps its calls; latencies add up and stay within their spread."""
    faults = Faults(random.Random(1))
    faults.add(ErrorCode(code=1, calls=1))
    faults.add(ErrorCode(code=2, calls=1))
    faults.add(Latency(there_ms=10, there_spread_ms=5))
    faults.add(Latency(there_ms=1, back_ms=2))
    first, second, third = faults.inject(1), faults.inject(1), faults.inject(1)
    assert [injection.ending.code for injection in (first, second) if isinstance(injection.ending, ErrorCode)] == [1, 2]
    assert third.ending is None
    for injection in (first, second, third):
        assert 11 <= injection.there_ms <= 16
        assert injection.back_ms == 2
    assert len({first.there_ms, second.there_ms, third.there_ms}) == 3


def test_clearing_and_the_bound() -> None:
    """No more than a hundred faults can be armed, and clearing disarms all."""
    faults = Faults(random.Random(1))
    for _ in range(FAULTS_MAX):
        faults.add(Hang())
    with pytest.raises(ValueError, match="at most 100"):
        faults.add(HttpStatus())
    faults.clear()
    assert faults.inject(1).ending is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"kind":"status","stats":502}', "unknown field `stats`"),
        ('{"kind":"explode"}', "explode"),
        ('{"status":502}', "kind"),
        ('{"kind":"status","status":200}', "status"),
        ('{"kind":"hang","share":0}', "share"),
        ('{"kind":"hang","share":0.5,"every":2}', "`every` and `share`"),
        ('{"kind":"latency","there_ms":-1}', "there_ms"),
    ],
)
def test_bad_faults_are_refused_by_name(text: str, named: str) -> None:
    """A fault with an unknown field or an impossible value is refused with a text that names it."""
    with pytest.raises(msgspec.ValidationError, match=named):
        msgspec.json.decode(text, type=SandboxFault)


def test_a_fault_of_one_kind_of_call_leaves_the_other_alone() -> None:
    """A fault for one kind of call leaves the other alone, and is not used up by it."""
    faults = Faults(random.Random(1))
    faults.add(ErrorCode(code=7, call="get", calls=1))
    assert faults.inject(1, "list").ending is None
    assert isinstance(faults.inject(1, "get").ending, ErrorCode)
    assert faults.inject(1, "get").ending is None
