"""A replica's estimate of the server's time is never ahead of it, and its waits are never too short."""

from service.budget.scheduler.rules import Rules
from service.budget.scheduler.server_clock import RECENT_MAX, ServerClock

WINDOW_MS = 1_000


def _clock(*answers: tuple[int, float, float], epoch: int = 1) -> ServerClock:
    """A clock that has learnt from these answers: the script's time, and ours when they were sent and arrived."""
    clock = ServerClock()
    for script_ms, sent_ms, now_ms in answers:
        clock.answered(epoch, script_ms, sent_ms=sent_ms, now_ms=now_ms)
    return clock


def _wait_ms(clock: ServerClock, in_ms: int, *, since_ms: int, now_ms: float) -> int:
    return clock.wait_ms(in_ms, since_ms=since_ms, within_ms=WINDOW_MS, now_ms=now_ms)


def test_a_wait_is_shortened_by_the_shortest_way_that_is_known() -> None:
    """An answer that was 80 ms on its way is 80 ms old; one that was 2 ms on its way shows it."""
    clock = _clock((5_000, 0, 80))
    assert _wait_ms(clock, 100, since_ms=5_000, now_ms=80) == 100
    clock.answered(1, 5_100, sent_ms=100, now_ms=102)
    clock.answered(1, 5_150, sent_ms=150, now_ms=230)
    assert _wait_ms(clock, 100, since_ms=5_150, now_ms=230) == 5_250 - 5_100 - (230 - 102)
    assert _wait_ms(clock, 50, since_ms=5_150, now_ms=230) == 0


def test_a_way_from_before_the_rest_does_not_count() -> None:
    """The server's clock may have gone back since, unnoticed: the slot would be used too early."""
    clock = _clock((5_000, 0, 1), (6_000, 1_000, 1_080))
    assert _wait_ms(clock, 100, since_ms=6_000, now_ms=1_080) == 100
    assert _wait_ms(clock, 2_000, since_ms=6_000, now_ms=1_080) == 2_000
    clock = _clock((5_101, 101, 102), (6_000, 1_000, 1_080))
    assert _wait_ms(clock, 100, since_ms=6_000, now_ms=1_080) == 100 - 79


def test_another_epoch_is_another_clock() -> None:
    """After a loss of Redis's data its time may start again, below the last known time."""
    clock = _clock((5_000, 0, 1))
    clock.answered(2, 4_900, sent_ms=1, now_ms=81)
    assert _wait_ms(clock, 150, since_ms=4_900, now_ms=81) == 150


def test_turns_are_given_by_two_of_the_longest_round_trips_ahead() -> None:
    """Of the latest answers; and never by more than a quarter of the window."""
    rules = Rules(calls=5, window_ms=WINDOW_MS, transit_ms=500)
    assert rules.ahead_for(ServerClock().round_trip_ms) == rules.ahead_ms
    clock = _clock((5_000, 0, 40), (5_100, 100, 101))
    assert rules.ahead_for(clock.round_trip_ms) == rules.ahead_ms + 80
    for number in range(RECENT_MAX):
        clock.answered(1, 5_200 + number, sent_ms=200 + number, now_ms=201 + number)
    assert rules.ahead_for(clock.round_trip_ms) == rules.ahead_ms + 2
    assert rules.ahead_for(1_000) == rules.ahead_max_ms == WINDOW_MS // 4
