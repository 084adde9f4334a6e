"""The error table, compared with what is known of the upstream, and the consequences of each code."""

import pytest

from service.model.calls import CallKind
from service.model.errors import CallsStopped, QueryRefused, Throttled, UpstreamRefused
from service.upstream.codes import TABLE, CodeKind, advice_for, kind_of
from service.upstream.refusals import CallStops, refusal_error
from service.upstream.verdicts import RetryVerdict, explain, verdict

EXPECTED = {
    CodeKind.THROTTLED: (60007, 60011, 60018, 60019),
    CodeKind.TRANSIENT: (60008, 60014, 70169, 70202, 70500, 90105, 91000),
    CodeKind.ANSWER_NOT_BUILT: (60013,),
    CodeKind.SIGNATURE_EXPIRED: (70001, 70052),
    CodeKind.TOO_MANY_BAD_SIGNATURES: (70050,),
    CodeKind.CREDENTIALS: (70002, 70003, 70005, 70009, 70013, 70014),
    CodeKind.WRONG_REGION: (70016, 70020),
    CodeKind.ACCOUNT: (
        *(60004, 60005, 60006, 60010, 60012, 60015, 60016, 60017, 60020, 60021),
        *(70051, 70107, 70114, 70403),
    ),
    CodeKind.OUR_FAULT: (60002, 60003, 60009, 70402),
    CodeKind.CALLER_FAULT: (90104,),
    CodeKind.UNKNOWN: (1, -1, 60001, 70000, 90106, 2**70),
}

ERRORS: dict[CodeKind, tuple[type[UpstreamRefused], RetryVerdict]] = {
    CodeKind.THROTTLED: (Throttled, RetryVerdict.AFTER_PAUSE),
    CodeKind.TRANSIENT: (UpstreamRefused, RetryVerdict.AGAIN),
    CodeKind.ANSWER_NOT_BUILT: (UpstreamRefused, RetryVerdict.ONCE_MORE),
    CodeKind.SIGNATURE_EXPIRED: (UpstreamRefused, RetryVerdict.ONCE_MORE),
    CodeKind.TOO_MANY_BAD_SIGNATURES: (CallsStopped, RetryVerdict.NEVER),
    CodeKind.CREDENTIALS: (CallsStopped, RetryVerdict.NEVER),
    CodeKind.WRONG_REGION: (CallsStopped, RetryVerdict.NEVER),
    CodeKind.ACCOUNT: (CallsStopped, RetryVerdict.NEVER),
    CodeKind.OUR_FAULT: (CallsStopped, RetryVerdict.NEVER),
    CodeKind.CALLER_FAULT: (QueryRefused, RetryVerdict.NEVER),
    CodeKind.UNKNOWN: (UpstreamRefused, RetryVerdict.NEVER),
}

CASES = [(kind, code) for kind, codes in EXPECTED.items() for code in codes]


def refusal(code: int, *, stopped_s: float = 30.0, persists: bool = False) -> UpstreamRefused:
    return refusal_error(app="shop", code=code, text="their words", stopped_s=stopped_s, persists=persists)


def test_the_table_has_each_known_code_once() -> None:
    """The table holds each known code once, and no others."""
    codes = [code for entry in TABLE for code in entry.codes]
    assert sorted(codes) == sorted(code for kind, code in CASES if kind is not CodeKind.UNKNOWN)
    assert set(EXPECTED) == set(ERRORS) == set(CodeKind)


@pytest.mark.parametrize(("kind", "code"), CASES)
def test_each_code_is_classified_and_explained(kind: CodeKind, code: int) -> None:
    """Each code has the expected kind, error and verdict, and is explained with code, text and advice."""
    assert kind_of(code) is kind
    error = refusal(code)
    expected_type, expected_verdict = ERRORS[kind]
    assert type(error) is expected_type
    assert verdict(error) is expected_verdict
    assert (error.app, error.code, error.text) == ("shop", code, "their words")
    for part in (str(code), "their words", advice_for(code)):
        assert part in explain(error)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (70009, "secret"),
        (70013, "admin"),
        (70020, "region"),
        (60021, "source address"),
        (60020, "package"),
        (60010, "App admin"),
        (70001, "clock"),
        (90104, "range_max_days"),
        (60007, "too often"),
        (12345, "does not know"),
    ],
)
def test_advice_names_the_cause(code: int, words: str) -> None:
    """The advice for operators names what to check."""
    assert words in explain(refusal(code))


@pytest.mark.parametrize("code", [70001, 70052])
def test_a_new_signature_refused_as_expired_stops_calls(code: int) -> None:
    """A new signature that is refused as expired stops calls and is not tried again."""
    error = refusal(code, persists=True)
    assert isinstance(error, CallsStopped)
    assert verdict(error) is RetryVerdict.NEVER


def test_a_stop_lasts_as_configured() -> None:
    """A stop lasts as long as set; after too many bad signatures never less than 60 seconds."""
    for code, stopped_s, expected_s in ((70009, 5.0, 5.0), (70050, 5.0, 60.0), (70050, 90.0, 90.0)):
        error = refusal(code, stopped_s=stopped_s)
        assert isinstance(error, CallsStopped)
        assert error.stopped_for_s == expected_s


def stop(code: int, stopped_s: float = 60.0) -> CallsStopped:
    error = refusal(code, stopped_s=stopped_s)
    assert isinstance(error, CallsStopped)
    return error


def test_a_stop_ends_by_itself() -> None:
    """A stop applies to its app only, reports its remaining time, and ends by itself."""
    stops = CallStops()
    stops.begin(stop(70009), CallKind.LIST, fingerprint=b"a", now_s=100.0)
    left = stops.current("shop", CallKind.LIST, fingerprint=lambda: b"a", now_s=130.0)
    assert left is not None
    assert (left.code, left.text, left.stopped_for_s, left.sent) == (70009, "their words", 30.0, False)
    assert stops.current("other", CallKind.LIST, fingerprint=lambda: b"a", now_s=130.0) is None
    assert stops.current("shop", CallKind.LIST, fingerprint=lambda: b"a", now_s=160.0) is None


def test_changed_secret_lifts_a_stop() -> None:
    """A changed secret lifts a stop at once, but not the upstream's own pause for bad signatures."""
    stops = CallStops()
    stops.begin(stop(70009), CallKind.LIST, fingerprint=b"a", now_s=0.0)
    assert stops.current("shop", CallKind.LIST, fingerprint=lambda: b"b", now_s=1.0) is None
    stops.begin(stop(70050), CallKind.LIST, fingerprint=b"a", now_s=0.0)
    assert stops.current("shop", CallKind.LIST, fingerprint=lambda: b"b", now_s=59.0) is not None
    assert stops.current("shop", CallKind.LIST, fingerprint=lambda: b"b", now_s=60.0) is None


def test_a_shorter_stop_does_not_cut_a_longer_one() -> None:
    """A shorter stop does not cut a longer one that already runs."""
    stops = CallStops()
    stops.begin(stop(70050), CallKind.LIST, fingerprint=b"a", now_s=0.0)
    stops.begin(stop(70009, 5.0), CallKind.LIST, fingerprint=b"a", now_s=0.0)
    left = stops.current("shop", CallKind.LIST, fingerprint=lambda: b"a", now_s=10.0)
    assert left is not None
    assert left.code == 70050


@pytest.mark.parametrize(("code", "stops_lists"), [(60009, False), (60020, False), (70009, True), (70050, True)])
def test_stop_of_one_kind_of_call(code: int, stops_lists: bool) -> None:
    """A package without a call, or a malformed one, stops that kind of call; a bad signature stops all."""
    stops = CallStops()
    stops.begin(stop(code), CallKind.GET, fingerprint=b"a", now_s=0.0)
    assert stops.current("shop", CallKind.GET, fingerprint=lambda: b"a", now_s=1.0) is not None
    assert (stops.current("shop", CallKind.LIST, fingerprint=lambda: b"a", now_s=1.0) is not None) is stops_lists
