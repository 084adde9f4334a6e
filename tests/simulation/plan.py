"""A simulation's plan, drawn from a seed: values only, so that a failing one can be shown and shrunk."""

import random
from collections.abc import Iterator

import msgspec

APPS = ("shop", "news")
FAULTS = (
    "keys are lost",
    "all is lost",
    "redis restarts",
    "redis fails over",
    "values are damaged",
    "scheduler keys are lost",
    "purge",
    "reload",
    "redis is away",
    "answers are lost",
    "a replica dies",
    "a replica is slow",
    "a wall clock steps",
    "the server's clock steps",
    "messages are lost",
    "upstream hangs",
    "upstream fails",
    "upstream throttles",
    "upstream is flaky",
    "upstream is slow",
)
KINDS = (
    *("poll", "poll", "poll", "walk", "stream", "hang up", "burst", "rare", "insist", "bounded", "cached only"),
    *("task", "task", "unknown task"),
)


class CallerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One caller: its behaviour, and its interval in seconds."""

    name: str
    kind: str
    app: str
    query: int
    weight: float
    starts_s: float
    period_s: float
    patience_s: float


class FaultPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One fault, when and for how long; `amount` is a share, a step or a number, from 0 to 1."""

    kind: str
    at_s: float
    lasts_s: float
    amount: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A whole simulation. `shares`: replicas share the calls while Redis is away; `calls_apart`, `weights_apart`: every
    second replica has its own settings, as in a rollout that changes them.
    """

    seed: int
    replicas: int
    calls: int
    window_ms: int
    transit_ms: int
    duration_s: float
    fresh_s: float
    redis_s: tuple[float, float]
    upstream_s: tuple[float, float]
    slow_connects: float
    memory_bytes: int
    wall_apart_s: float
    shares: bool
    calls_apart: bool
    weights_apart: bool
    callers: tuple[CallerPlan, ...]
    faults: tuple[FaultPlan, ...]

    def text(self) -> str:
        """The plan, for reading."""
        rules = f"{self.calls} calls in {self.window_ms} ms, transit {self.transit_ms} ms, fresh for {self.fresh_s:g} s"
        lines = [f"seed {self.seed}: {self.replicas} replicas, {rules}, {self.duration_s:g} s long"]
        lines += [f"  {name}" for name in ("shares", "calls_apart", "weights_apart") if getattr(self, name)]
        for caller in self.callers:
            pace = f"every {caller.period_s:.2f} s from {caller.starts_s:.1f} s"
            what = f"{caller.kind} {caller.app}/q{caller.query} {pace}"
            lines.append(f"  {caller.name}: {what}, weight {caller.weight:g}, patience {caller.patience_s:g} s")
        for fault in self.faults:
            lines.append(f"  {fault.at_s:.1f} s: {fault.kind} for {fault.lasts_s:g} s ({fault.amount:.2f})")
        return "\n".join(lines)


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    chance = random.Random(seed)
    duration_s = chance.choice([15.0, 20.0, 30.0])
    slow = chance.random() < 0.2
    plan = Plan(
        seed=seed,
        replicas=chance.choice([1, 1, 2, 3, 8]),
        calls=chance.choice([1, 2, 5, 5]),
        window_ms=chance.choice([400, 1000, 1000]),
        transit_ms=chance.choice([100, 300, 500]),
        duration_s=duration_s,
        fresh_s=chance.choice([0.5, 2.0, 5.0, 15.0]),
        redis_s=(0.0002, chance.choice([0.001, 0.005, 0.03])),
        upstream_s=(0.3, 1.5) if slow else (0.01, chance.choice([0.05, 0.2])),
        slow_connects=0.03,
        memory_bytes=chance.choice([1_000_000, 1_000_000, 8_000, 0]),
        wall_apart_s=chance.choice([0.0, 0.0, 0.02, 0.3]),
        shares=False,
        calls_apart=False,
        weights_apart=False,
        callers=tuple(_callers(chance, duration_s)),
        faults=tuple(sorted(_faults(chance, duration_s), key=lambda fault: fault.at_s)),
    )
    return _with_settings(plan, random.Random(f"{seed} settings"))


def _with_settings(plan: Plan, chance: random.Random) -> Plan:
    """Let replicas share the calls in an outage (and let there be one), or have settings that differ."""
    weights_apart = chance.random() < 0.3
    if plan.calls >= plan.replicas and chance.random() < 0.3:
        away = FaultPlan(kind="redis is away", at_s=chance.uniform(2, 8), lasts_s=5.0, amount=0.5)
        faults = tuple(sorted((*plan.faults, away), key=lambda fault: fault.at_s))
        return msgspec.structs.replace(plan, shares=True, weights_apart=weights_apart, faults=faults)
    return msgspec.structs.replace(plan, calls_apart=chance.random() < 0.3, weights_apart=weights_apart)


def calm(seed: int) -> Plan:
    """A lasting backlog without faults: waits are fair and the budget is fully used."""
    chance = random.Random(seed)
    return Plan(
        seed=seed,
        replicas=chance.choice([1, 2, 3, 8]),
        calls=chance.choice([2, 5]),
        window_ms=1000,
        transit_ms=300,
        duration_s=40.0,
        fresh_s=0.5,
        redis_s=(0.0002, chance.choice([0.001, 0.005])),
        upstream_s=(0.01, 0.1),
        slow_connects=0.0,
        memory_bytes=1_000_000,
        wall_apart_s=0.0,
        shares=False,
        calls_apart=False,
        weights_apart=False,
        callers=tuple(
            CallerPlan(
                name=f"c{number}",
                kind="backlog",
                app="shop",
                query=number,
                weight=1.0,
                starts_s=chance.uniform(0, 1),
                period_s=0.01,
                patience_s=30.0,
            )
            for number in range(chance.randint(3, 8))
        ),
        faults=(),
    )


def _callers(chance: random.Random, duration_s: float) -> Iterator[CallerPlan]:
    for number in range(chance.randint(1, 9)):
        kind = chance.choice(KINDS)
        yield CallerPlan(
            name=f"c{number}",
            kind=kind,
            app=chance.choice([*APPS, APPS[0]]),
            query=chance.randint(0, 4),
            weight=chance.choice([1.0, 1.0, 3.0, 0.3]),
            starts_s=chance.uniform(0, duration_s / 3),
            period_s=duration_s / 4 if kind == "rare" else chance.choice([0.2, 0.5, 1.0, 3.0]),
            patience_s=chance.choice([0.0, 0.5, 3.0, 6.0, 20.0]),
        )


def _faults(chance: random.Random, duration_s: float) -> Iterator[FaultPlan]:
    for _ in range(chance.choice([0, 2, 4, 8, 12])):
        yield FaultPlan(
            kind=chance.choice(FAULTS),
            at_s=chance.uniform(1, duration_s * 0.9),
            lasts_s=chance.choice([0.5, 2.0, 5.0]),
            amount=chance.random(),
        )


def smaller(plan: Plan) -> Iterator[Plan]:
    """Plans that do a little less, the boldest first."""
    for name in ("faults", "callers"):
        parts = getattr(plan, name)
        if len(parts) > 2:
            half = len(parts) // 2
            yield msgspec.structs.replace(plan, **{name: parts[:half]})
            yield msgspec.structs.replace(plan, **{name: parts[half:]})
    for name, least in (("faults", 0), ("callers", 1)):
        parts = getattr(plan, name)
        for index in range(len(parts)):
            if len(parts) > least:
                yield msgspec.structs.replace(plan, **{name: parts[:index] + parts[index + 1 :]})
    for name in ("shares", "calls_apart", "weights_apart"):
        if getattr(plan, name):
            yield msgspec.structs.replace(plan, **{name: False})
    if plan.replicas > 1:
        yield msgspec.structs.replace(plan, replicas=plan.replicas - 1)
    if plan.duration_s > 5:
        yield msgspec.structs.replace(plan, duration_s=plan.duration_s * 0.7)
