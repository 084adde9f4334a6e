"""Random histories on a real Valkey: the script answers as the model does, and the rules hold in true time."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from service.budget.scheduler.interfaces import FIRST_WISH, Begun, Ticked, TickRequest, Wish
from service.budget.scheduler.rules import Rules
from tests.contract.scheduler_histories import (
    BACKGROUND,
    BLOCKS,
    CALLERS,
    HEADS,
    KINDS,
    LATENCY,
    WEIGHTS,
    Draw,
    Replica,
    Use,
)
from tests.contract.scheduler_states import compare
from tests.contract.scheduler_world import World, row, run, server


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with server() as client:
        yield client


class Histories(RuleBasedStateMachine):
    """1 to 8 replicas and up to 20 callers under all kinds of events."""

    client: ClassVar[redis.Redis]

    @initialize(
        calls=st.sampled_from([5, 3, 2, 1]),
        window=st.sampled_from([400, 1000, 100]),
        transit=st.sampled_from([300, 50, 0]),
        ahead=st.sampled_from([25, 0, 90]),
        lease=st.sampled_from([300, 50]),
        fetch=st.sampled_from([2000, 200]),
        step=st.sampled_from([250, 100]),
        replicas=st.sampled_from([3, 8, 2, 1]),
    )
    def start(
        self, calls: int, window: int, transit: int, ahead: int, lease: int, fetch: int, step: int, replicas: int
    ) -> None:
        self.rules = Rules(
            calls=calls,
            window_ms=window,
            transit_ms=transit,
            turn_lease_ms=lease,
            fetch_lease_ms=fetch,
            report_lease_ms=600,
            ahead_ms=ahead,
            clock_step_ms=step,
        )
        self.world = World(self.client, self.rules)
        self.born = 0
        self.wishes = 0
        self.behind = 0
        self.replicas: list[Replica] = []
        for _ in range(replicas):
            self.join()
        self.uses: list[Use] = []
        for number, replica in enumerate(self.replicas):
            replica.waiting = {caller: [self.world.now] * 3 for caller in CALLERS[number :: 5 + number]}
            self.both(replica, "tick", TickRequest(), out=1, back=1)
        self.world.now += transit + self.rules.rest_ms

    def join(self) -> None:
        self.born += 1
        self.replicas.append(Replica(self.world, f"r{self.born}"))

    # One call in both worlds.

    def both(
        self, replica: Replica, op: str, *args: Any, out: int, back: int, lost: bool = False, **kwargs: Any
    ) -> Any:
        if self.meets_a_left_run(replica):
            self.world.run_id += "a"
        sent = self.world.now
        at = sent + out
        answers = []
        for scheduler in (replica.local, replica.shared):
            self.world.plan(sent=sent, at=at, back=1e9 if lost else at + back)
            answers.append(run(getattr(scheduler, op)(*args, **kwargs)))
        self.world.now = at + back
        assert answers[0] == answers[1], answers
        return answers[0]

    def meets_a_left_run(self, replica: Replica) -> bool:
        """Whether the state has a run that this replica has left: after two losses, or on an outdated server.

        It can't distinguish them, and takes all slots, which is safe in either case. The model has no runs to leave.
        """
        packed = self.client.get("tg:{news}:slots")
        return packed is not None and msgspec.msgpack.decode(packed)[3] in replica.shared.runs.left

    # What happens.

    @rule(data=st.data(), kind=st.sampled_from(KINDS))
    def happens(self, data: st.DataObject, kind: str) -> None:
        """One rule, so that no history is made without the common steps."""
        getattr(self, kind)(data.draw, data.draw(st.sampled_from(self.replicas)))

    def way(self, draw: Draw) -> dict[str, Any]:
        """How long a call takes in each direction, and whether its answer arrives."""
        return {"out": draw(LATENCY), "back": draw(LATENCY), "lost": draw(st.integers(0, 9)) == 9}

    def time_passes(self, draw: Draw, _: Replica) -> None:
        self.world.now += draw(st.one_of(st.integers(0, 60), st.integers(0, 600), st.integers(0, 5000)))

    def the_turn_comes(self, draw: Draw, replica: Replica) -> None:
        """A correct replica: it ticks when due, begins its turns, ends its fetches."""
        self.world.now += replica.due
        self.ticks(draw, replica)
        for turn in replica.turns[: draw(st.sampled_from([9, 9, 1, 0]))]:
            self.world.now += draw(st.sampled_from([0, 0, 0, turn.usable_in_ms]))
            self.begins(draw, replica)
            if draw(st.booleans()):
                self.ends(draw, replica)

    def someone_asks(self, draw: Draw, replica: Replica) -> None:
        count = draw(st.integers(1, 4))
        replica.waiting.setdefault(draw(st.sampled_from(CALLERS)), []).extend([self.world.now] * count)

    def someone_leaves(self, draw: Draw, replica: Replica) -> None:
        if replica.waiting:
            del replica.waiting[draw(st.sampled_from(sorted(replica.waiting)))]

    def ticks(self, draw: Draw, replica: Replica) -> None:
        returned: tuple[int, ...] = ()
        if draw(st.integers(0, 4)) == 4:
            returned = (*[turn.id for turn in replica.turns][:1], *list(replica.begun)[:1])
        for turn in returned:
            self.uses = [use for use in self.uses if use.turn != turn]  # no call was made with it
            replica.begun.pop(turn, None)
        rows = tuple(
            row(
                caller,
                len(times),
                weight=WEIGHTS[caller],
                waited_ms=int(self.world.now - times[0]),
                background=caller in BACKGROUND,
            )
            for caller, times in replica.waiting.items()
        )
        way = self.way(draw)
        quiet = draw(st.integers(0, 39)) == 39
        wish = self.wish(draw, replica)
        asked = self.world.now
        board = draw(st.booleans())
        request = TickRequest(waiting=rows, returned=returned, quiet=quiet, wants_board=board, wish=wish)
        ticked: Ticked = self.both(replica, "tick", request, **way)
        if wish is not None and isinstance(ticked.begun, Begun):
            self.begun(replica, wish.turn, wish.block, ticked.begun, asked=asked, **way)
        self.no_slot_idles(ticked)
        if not way["lost"]:
            replica.turns = list(ticked.turns)
            replica.due = ticked.due_in_ms or 0

    def wish(self, draw: Draw, replica: Replica) -> Wish | None:
        if not replica.waiting or draw(st.booleans()):
            return None
        self.wishes += 1
        block = draw(BLOCKS)
        return Wish(
            turn=FIRST_WISH + self.wishes,
            in_use=tuple(turn.id for turn in replica.turns),
            caller=draw(st.sampled_from(sorted(replica.waiting))),
            block=block,
            known=draw(HEADS),
        )

    def begins(self, draw: Draw, replica: Replica) -> None:
        if replica.turns:
            self.use(replica, replica.turns[0].id, draw(BLOCKS), known=draw(HEADS), **self.way(draw))

    def begins_again(self, draw: Draw, replica: Replica) -> None:
        if replica.begun:
            turn = draw(st.sampled_from(sorted(replica.begun)))
            self.use(replica, turn, replica.begun[turn], known=b"", **self.way(draw))

    def use(self, replica: Replica, turn: int, block: str, *, known: bytes, out: int, back: int, lost: bool) -> None:
        asked = self.world.now
        answer = self.both(replica, "begin", turn, block=block, known=known, out=out, back=back, lost=lost)
        if isinstance(answer, Begun):
            self.begun(replica, turn, block, answer, asked=asked, out=out, back=back, lost=lost)
        else:
            self.ended(turn, asked + out)
            replica.begun.pop(turn, None)
        if not lost:
            replica.turns = [each for each in replica.turns if each.id != turn]

    def begun(
        self, replica: Replica, turn: int, block: str, answer: Begun, *, asked: float, out: int, back: int, lost: bool
    ) -> None:
        """A fetch has begun, if only the scheduler knows. Its call is sent as soon as the answer allows it, unless that
        comes so late that the call could arrive after the transit time: then it is not made.
        """
        at = asked + out
        slot = next(slot for slot in self.world.policy.slots if slot.turn == turn)
        usable = at + max(0, slot.usable_at - self.world.policy.now)
        last = usable + self.rules.transit_ms
        first = usable if lost else min(at + back + answer.usable_in_ms, last)
        for use in self.uses:
            assert use.turn == turn or use.block != block or use.lease_ends <= at, (
                use,
                at,
                self.world.policy.now,
                self.rules,
            )
        self.uses = [use for use in self.uses if use.turn != turn]
        ends = usable + self.rules.fetch_lease_ms - 1
        self.uses.append(Use(turn, block, asked, first, last, ends))
        replica.begun[turn] = block
        if not lost:
            # The receiver of the reply is served; one that lost it still waits.
            replica.serve()
        self.not_too_many()

    def ends(self, draw: Draw, replica: Replica) -> None:
        if not replica.begun:
            return
        turn = draw(st.sampled_from(sorted(replica.begun)))
        block = replica.begun.pop(turn)
        took = self.answered(draw, turn)
        pause = draw(st.sampled_from([0] * 7 + [100, 2000]))
        again = draw(st.booleans())
        arguments = {"block": block, "pause_reason": f"p{pause}", "took_ms": took}
        self.both(replica, "done", turn, pause_ms=pause, **arguments, **self.way(draw))
        if again:
            self.both(replica, "done", turn, pause_ms=0, **arguments, **self.way(draw))

    def answered(self, draw: Draw, turn: int) -> int | None:
        """The call is answered, at once or after a while, and `done` may be sent later; return its result."""
        use = next((use for use in self.uses if use.turn == turn), None)
        if use is None:
            return None
        self.world.now = max(self.world.now, use.first) + draw(st.sampled_from([0, 0, 30]))
        took = int(self.world.now - use.asked) + 1
        self.ended(turn, self.world.now)
        self.world.now += draw(st.sampled_from([0, 0, 0, 50, 400]))
        return draw(st.sampled_from([took, took, None]))

    def ended(self, turn: int, at: float) -> None:
        """The call was answered, or is no longer made: it can't arrive after this."""
        for use in self.uses:
            if use.turn == turn:
                use.last = max(use.first, min(use.last, at))
                use.lease_ends = min(use.lease_ends, at)

    def dies(self, _: Draw, replica: Replica) -> None:
        self.replicas.remove(replica)
        self.join()

    def the_servers_clock_steps(self, draw: Draw, replica: Replica) -> None:
        """Back, or forward by more than passes for time: what the clock has lost so far can't hide it."""
        step_ms = self.rules.clock_step_ms
        back = st.one_of(st.integers(-20, 0), st.integers(-4_000_000, 0))
        step = draw(st.one_of(back, st.integers(step_ms, 1000), st.integers(step_ms, 12_000_000)))
        if step > 0:
            step += self.behind
            self.behind = 0
            self.world.off += step
            self.ticks(draw, replica)  # or a step back might hide it before the next reading
        else:
            self.behind -= step
            self.world.off += step

    def redis_loses_its_data(self, draw: Draw, _: Replica) -> None:
        if draw(st.booleans()):
            self.world.flush()
        else:
            self.world.restart()
        for use in self.uses:
            use.lease_ends = min(use.lease_ends, self.world.now)

    def a_block_is_stored(self, draw: Draw, _: Replica) -> None:
        """Another replica stores a block, newer or not than the known one; or it is lost, or replaced by another
        type."""
        key = draw(BLOCKS)
        match draw(st.integers(0, 9)):
            case 0:
                self.world.garble(key)
            case 1 | 2 | 3:
                self.world.lose(key)
            case _:
                self.world.put(key, draw(HEADS) + b" and the rest of the block")

    # Invariants.

    def not_too_many(self) -> None:
        """Rule 1, under the worst network behaviour: in any window of true time."""
        window = self.rules.window_ms
        for use in self.uses:
            met = sum(other.first < use.last + window and other.last >= use.last for other in self.uses)
            assert met <= self.rules.calls, (use, self.uses)

    def no_slot_idles(self, ticked: Ticked) -> None:
        """Rule 2: after a tick of a waiting replica, nothing that could be given is left."""
        policy = self.world.policy
        if ticked.due_in_ms is None:
            return
        assert ticked.due_in_ms >= 0
        open_slots = [slot.free_at for slot in policy.slots if not slot.pending]
        soon = policy.now + policy.ahead_ms
        free = sum(at <= soon for at in open_slots)
        waits = Counter(dict.fromkeys(CALLERS, 0))
        for report in policy.reports.values():
            waits.update({caller: each.count for caller, each in report.rows.items()})
        waits.subtract(slot.caller for slot in policy.slots if slot.pending)
        urgent = any(count > 0 and caller not in BACKGROUND for caller, count in waits.items())
        if free >= (1 if urgent else min(2, self.rules.calls)) and policy.pause_until <= soon:
            starts = max(slot.usable_at if slot.pending else slot.started for slot in policy.slots)
            assert starts + self.rules.gap_ms > soon
            assert sum(each.count for report in policy.reports.values() for each in report.rows.values()) > free

    @invariant()
    def states_are_equal(self) -> None:
        """The script has stored the same state as the model."""
        if not hasattr(self, "world"):
            return
        compare(self.client, self.world.policy)


@pytest.mark.parametrize("examples", [75, pytest.param(1000, marks=pytest.mark.long)])
def test_the_script_and_the_model_agree_and_keep_the_rules(client: redis.Redis, examples: int) -> None:
    """No history of ticks, begins, dones, deaths, losses and clock steps tells the two apart or breaks a rule."""
    Histories.client = client
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Histories,
        settings=settings(
            max_examples=examples,
            database=None,
            stateful_step_count=60,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
