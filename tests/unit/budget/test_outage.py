"""The policy for a replica that gets no replies from Redis, as a pure function."""

import msgspec
import pytest

from service.budget.scheduler.fallback import notice_s
from service.budget.scheduler.outage import Outage


def _outage(*, grace_s: float = 1.0, notice_s: float = 1.2, quiet_s: float = 1.5, ahead_s: float = 0.0) -> Outage:
    return Outage(grace_s=grace_s, notice_s=notice_s, quiet_s=quiet_s, ahead_s=ahead_s)


def test_a_short_silence_is_only_waited_out() -> None:
    """No replica shares before the grace period has ended, and one that has not shared owes no quiet window."""
    outage = _outage().failed(asked_s=9.9, now_s=10.0).failed(asked_s=10.8, now_s=10.9)
    assert not outage.shares
    assert outage.answered(now_s=10.95) == _having_asked(_outage(), asked_s=10.8)


def _having_asked(outage: Outage, *, asked_s: float) -> Outage:
    """The same state, after a request at `asked_s`."""
    return msgspec.structs.replace(outage, asked_s=asked_s)


def test_sharing_begins_after_a_long_silence() -> None:
    """The grace period counts from the first failure on; an answer in between restarts it."""
    outage = _outage().failed(asked_s=10.0, now_s=10.0).answered(now_s=10.5).failed(asked_s=11.0, now_s=11.0)
    assert not outage.failed(asked_s=11.9, now_s=11.9).shares
    assert outage.failed(asked_s=12.0, now_s=12.0).shares


def test_without_grace_the_first_failure_is_enough() -> None:
    """A grace period of zero is none."""
    assert _outage(grace_s=0).failed(asked_s=1.0, now_s=1.0).shares


@pytest.mark.parametrize(
    ("quiet_s", "ahead_s", "until_s"), [(1.5, 0.0, 20.0), (0.2, 0.0, 21.0), (1.5, 0.25, 20.25), (0.2, 0.25, 21.25)]
)
def test_a_replica_that_shared_stays_quiet_until_all_have_detected_it(
    quiet_s: float, ahead_s: float, until_s: float
) -> None:
    """One quiet tick, or if that is shorter than detection takes, quiet ticks until detection is over; and until the
    calls of turns that began early have been sent."""
    outage = _outage(quiet_s=quiet_s, ahead_s=ahead_s).failed(asked_s=1, now_s=1)
    back = outage.failed(asked_s=3, now_s=3).answered(now_s=20.0)
    assert not back.shares
    assert back.owed_until_s == pytest.approx(until_s)
    assert back.kept_quiet(asked_s=until_s - 0.01).owed_until_s is not None
    assert back.kept_quiet(asked_s=until_s + 0.01).owed_until_s is None


def test_quiet_stays_owed_if_redis_fails_again() -> None:
    """A return that is cut short is made up for at the next one, even if no replica has shared in between."""
    back = _outage().failed(asked_s=1, now_s=1).failed(asked_s=3, now_s=3).answered(now_s=20.0)
    assert back.failed(asked_s=20.1, now_s=20.2).answered(now_s=20.3).owed_until_s is not None


def test_own_turns_wait_until_all_have_detected_it() -> None:
    """A quiet window shorter than detection is extended on the way out, too."""
    shares = _outage(quiet_s=0.2).failed(asked_s=1, now_s=1).failed(asked_s=3, now_s=3)
    assert shares.kept_quiet(asked_s=3.9).owed_until_s == pytest.approx(4.0)
    assert shares.kept_quiet(asked_s=4.1).owed_until_s is None
    assert shares.failed(asked_s=3.5, now_s=3.6).owed_until_s == pytest.approx(4.0)


def test_no_own_turn_begins_on_outdated_information() -> None:
    """A process that was stopped for a while must find Redis unavailable again before it calls."""
    shares = _outage().failed(asked_s=1, now_s=1).failed(asked_s=3, now_s=3)
    assert shares.may_begin_alone(now_s=4.1)
    assert not shares.may_begin_alone(now_s=4.3)
    assert shares.failed(asked_s=4.4, now_s=4.5).may_begin_alone(now_s=5.5)
    assert not shares.answered(now_s=4.0).may_begin_alone(now_s=4.0)


def test_replicas_detect_a_change_within_a_probe_and_three_timeouts() -> None:
    """Half a second between probes, a quarter for a busy replica, and a probe that hangs and is refused before one that
    succeeds."""
    assert notice_s(0.25) == pytest.approx(1.5)
    assert notice_s(1.0) == pytest.approx(3.75)


def test_information_is_valid_for_as_long_as_detection_takes() -> None:
    """To the end of that time and not beyond."""
    shares = _outage(notice_s=1.25).failed(asked_s=1, now_s=1).failed(asked_s=3, now_s=3)
    assert shares.may_begin_alone(now_s=4.25)
    assert not shares.may_begin_alone(now_s=4.3)
