"""Random histories on a real Valkey: the script answers as the model does, and the rules hold in true time."""

from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.budget.policy import Policy
from service.budget.scheduler import Begun, Early, Lapsed, Rules, Ticked
from tests.contract.scheduler_world import World, row, run, valkey

CALLERS = [f"c{number:02}" for number in range(20)]
WEIGHTS = {caller: [1.0, 3.0, 0.1, 0.7, 2.5][number % 5] for number, caller in enumerate(CALLERS)}
LATENCY = st.integers(0, 80)
BLOCKS = st.sampled_from(["x", "y", "z"])


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with valkey() as client:
        yield client


class Use(msgspec.Struct):
    """A call that may have been made: it arrives between `first` and `last`, in true time."""

    turn: int
    block: str
    first: float
    last: float
    lease_ends: float


class Replica:
    """One replica in both worlds, with what it wants and what it was told."""

    def __init__(self, world: World, name: str) -> None:
        self.local = world.local(name)
        self.shared = world.shared(name)
        self.waiting: dict[str, list[float]] = {}
        self.turns: list[int] = []
        self.begun: dict[int, str] = {}


class Histories(RuleBasedStateMachine):
    """1 to 8 replicas and up to 20 callers under everything that may happen."""

    client: ClassVar[redis.Redis]

    @initialize(
        calls=st.integers(1, 5),
        window=st.sampled_from([100, 400, 1000]),
        transit=st.sampled_from([0, 50, 300]),
        ahead=st.sampled_from([0, 25, 90]),
        lease=st.sampled_from([50, 300]),
        fetch=st.sampled_from([200, 2000]),
        step=st.sampled_from([1, 3, 10]),
        replicas=st.integers(1, 8),
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
        self.replicas: list[Replica] = []
        for _ in range(replicas):
            self.join()
        self.uses: list[Use] = []
        self.stepped = -1e9

    def join(self) -> None:
        self.born += 1
        self.replicas.append(Replica(self.world, f"r{self.born}"))

    # One call in both worlds.

    def both(
        self, replica: Replica, op: str, *args: Any, out: int, back: int, lost: bool = False, **kwargs: Any
    ) -> Any:
        sent = self.world.now
        at = sent + out
        answers = []
        for scheduler in (replica.local, replica.shared):
            self.world.plan(sent=sent, at=at, back=1e9 if lost else at + back)
            answers.append(run(getattr(scheduler, op)(*args, **kwargs)))
        self.world.now = at + back
        assert answers[0] == answers[1]
        return answers[0]

    def pick(self, number: int) -> Replica:
        return self.replicas[number % len(self.replicas)]

    # What happens.

    @rule(ms=st.one_of(st.integers(0, 40), st.integers(0, 400), st.integers(0, 5000)))
    def time_passes(self, ms: int) -> None:
        self.world.now += ms

    @rule(number=st.integers(0, 7), caller=st.sampled_from(CALLERS), count=st.integers(1, 4))
    def someone_asks(self, number: int, caller: str, count: int) -> None:
        self.pick(number).waiting.setdefault(caller, []).extend([self.world.now] * count)

    @rule(number=st.integers(0, 7), caller=st.sampled_from(CALLERS))
    def someone_leaves(self, number: int, caller: str) -> None:
        self.pick(number).waiting.pop(caller, None)

    @rule(
        number=st.integers(0, 7),
        out=LATENCY,
        back=LATENCY,
        lost=st.booleans(),
        board=st.booleans(),
        give_back=st.integers(0, 5),
        quiet=st.integers(0, 19),
    )
    def tick(self, number: int, out: int, back: int, lost: bool, board: bool, give_back: int, quiet: int) -> None:
        replica = self.pick(number)
        returned = (
            tuple(replica.turns[:1]) if give_back == 0 else tuple(list(replica.begun)[:1]) if give_back == 1 else ()
        )
        for turn in returned:
            self.ended(replica, turn, self.world.now)
        rows = tuple(
            row(caller, len(times), weight=WEIGHTS[caller], waited_ms=int(self.world.now - times[0]))
            for caller, times in replica.waiting.items()
        )
        told: Ticked = self.both(
            replica, "tick", rows, returned=returned, quiet=quiet == 0, wants_board=board, out=out, back=back, lost=lost
        )
        self.no_slot_idles(told)
        if not lost:
            replica.turns = [turn.id for turn in told.turns]

    @rule(
        number=st.integers(0, 7), block=BLOCKS, out=LATENCY, back=LATENCY, lost=st.booleans(), known=st.integers(0, 9)
    )
    def begin(self, number: int, block: str, out: int, back: int, lost: bool, known: int) -> None:
        replica = self.pick(number)
        if replica.turns:
            self.use(
                replica, replica.turns[0], block, out=out, back=back, lost=lost, known=b"old" if known == 0 else b""
            )

    @rule(number=st.integers(0, 7), out=LATENCY, back=LATENCY, lost=st.booleans())
    def begin_again(self, number: int, out: int, back: int, lost: bool) -> None:
        replica = self.pick(number)
        if replica.begun:
            turn, block = next(iter(replica.begun.items()))
            self.use(replica, turn, block, out=out, back=back, lost=lost, known=b"")

    def use(self, replica: Replica, turn: int, block: str, *, out: int, back: int, lost: bool, known: bytes) -> None:
        at = self.world.now + out
        answer = self.both(
            replica,
            "begin",
            turn,
            block=block,
            block_key="tg:{news}:" + block,
            known=known,
            out=out,
            back=back,
            lost=lost,
        )
        if isinstance(answer, Begun):
            for use in self.uses:
                assert use.turn == turn or use.block != block or use.lease_ends <= at, "two fetches for one block"
            self.uses = [use for use in self.uses if use.turn != turn]
            ends = at + self.rules.fetch_lease_ms - self.rules.clock_step_ms
            self.uses.append(Use(turn, block, at, at + self.rules.transit_ms, ends))
            replica.begun[turn] = block
            self.not_too_many()
        elif not isinstance(answer, Early):
            self.ended(replica, turn, at)
        if not lost and not isinstance(answer, Early) and turn in replica.turns:
            replica.turns.remove(turn)
        if isinstance(answer, Lapsed):
            replica.begun.pop(turn, None)

    @rule(
        number=st.integers(0, 7),
        out=LATENCY,
        back=LATENCY,
        lost=st.booleans(),
        pause=st.sampled_from([0, 0, 0, 0, 100, 2000]),
        again=st.booleans(),
    )
    def done(self, number: int, out: int, back: int, lost: bool, pause: int, again: bool) -> None:
        replica = self.pick(number)
        if not replica.begun:
            return
        turn, block = next(iter(replica.begun.items()))
        sent = self.world.now
        self.both(
            replica, "done", turn, block=block, pause_ms=pause, pause_reason=f"p{pause}", out=out, back=back, lost=lost
        )
        self.ended(replica, turn, sent)
        if again:
            self.both(replica, "done", turn, block=block, pause_ms=0, pause_reason="", out=out, back=back)
        replica.begun.pop(turn, None)
        if turn in replica.turns:
            replica.turns.remove(turn)

    def ended(self, replica: Replica, turn: int, at: float) -> None:
        """The call was answered, or is not made any more: it can't arrive after this."""
        for use in self.uses:
            if use.turn == turn:
                use.last = max(use.first, min(use.last, at))
                use.lease_ends = min(use.lease_ends, at)

    @rule(number=st.integers(0, 7))
    def a_replica_dies(self, number: int) -> None:
        self.replicas.remove(self.pick(number))
        self.join()

    @rule(ms=st.one_of(st.integers(-20, 20), st.integers(-4_000_000, 12_000_000)))
    def the_servers_clock_steps(self, ms: int) -> None:
        if ms < 0 or self.world.now - self.stepped > self.rules.transit_ms + self.rules.rest_ms:
            self.world.off += ms
            self.stepped = self.world.now

    @precondition(lambda self: self.born % 2 == 0)
    @rule(flush=st.booleans())
    def redis_loses_its_data(self, flush: bool) -> None:
        if flush:
            self.world.flush()
        else:
            self.world.restart()
        for use in self.uses:
            use.lease_ends = min(use.lease_ends, self.world.now)

    @rule(block=BLOCKS)
    def a_block_is_stored(self, block: str) -> None:
        self.world.put("tg:{news}:" + block, b"" if block in self.world.blocks else b"some")

    # What must hold.

    def not_too_many(self) -> None:
        """Rule 1, at the worst that the network can do: in any window of true time."""
        window = self.rules.window_ms
        for use in self.uses:
            met = sum(other.first < use.last + window and other.last >= use.last for other in self.uses)
            assert met <= self.rules.calls, (use, self.uses)

    def no_slot_idles(self, told: Ticked) -> None:
        """Rule 2: after a tick of one who waits, nothing that could be given is left."""
        policy = self.world.policy
        if told.due_in_ms is None:
            return
        assert told.due_in_ms > 0
        open_slots = [slot.free_at for slot in policy.slots if not slot.pending]
        soon = policy.now + self.rules.ahead_ms
        free = sum(at <= soon for at in open_slots)
        if free and policy.pause_until <= soon:
            starts = max(slot.usable_at if slot.pending else slot.started for slot in policy.slots)
            assert starts + self.rules.gap_ms > soon
            assert sum(count for report in policy.reports.values() for _, _, count, _ in report.rows) > free

    @invariant()
    def states_are_equal(self) -> None:
        """The script has kept what the model keeps."""
        if not hasattr(self, "world"):
            return
        policy: Policy = self.world.policy
        packed = self.client.get("tg:{news}:slots")
        assert (packed is None) == (not policy.slots)
        if packed is None:
            return
        state = msgspec.msgpack.decode(packed)
        assert state[1:11] == [
            policy.now,
            policy.raw,
            policy.run_id,
            policy.epoch,
            policy.virtual,
            policy.next_id,
            policy.purge_at,
            policy.held,
            policy.pause_until,
            policy.pause_reason,
        ]
        assert [slot[0] for slot in state[11]] == [slot.free_at for slot in policy.slots]
        assert [slot[2] for slot in state[11]] == [slot.turn for slot in policy.slots]
        tags = {name: f"{'' if tag.active else '-'}{tag.value:.17g}".encode() for name, tag in policy.tags.items()}
        assert {name.decode(): tag for name, tag in self.client.hgetall("tg:{news}:tags").items()} == tags
        assert {name.decode() for name in self.client.hkeys("tg:{news}:flights")} == set(policy.flights)
        assert {name.decode() for name in self.client.hkeys("tg:{news}:reports")} == set(policy.reports)


def test_the_script_and_the_model_agree_and_keep_the_rules(client: redis.Redis) -> None:
    """No history of ticks, begins, dones, deaths, losses and clock steps tells the two apart or breaks a rule."""
    Histories.client = client
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Histories,
        settings=settings(
            max_examples=60,
            stateful_step_count=60,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
