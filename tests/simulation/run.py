"""Simulate many seeds, and print the first that fails, shrunk: `make simulate SEEDS=1000 FIRST=1`."""

import argparse
import sys
import time

from tests.simulation.plan import Plan, calm, draw, smaller
from tests.simulation.world import Outcome, shrunk, simulate

CALM_EVERY = 10


def plan_of(seed: int) -> Plan:
    """The plan of a seed; every tenth is a lasting backlog without faults."""
    return calm(seed) if seed % CALM_EVERY == 0 else draw(seed)


def report(outcome: Outcome) -> str:
    """A failing seed: its plan, its history, and the violated invariant."""
    return "\n".join((outcome.plan.text(), *outcome.history, f"VIOLATED {outcome.detail}"))


def main() -> int:
    """Run the seeds; status 1 with a report at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--keep-going", action="store_true", help="print all failing seeds, one per line")
    options = parser.parse_args()
    began_s, requests, failed = time.monotonic(), 0, 0
    for seed in range(options.first, options.first + options.seeds):
        outcome = simulate(plan_of(seed))
        requests += outcome.requests
        if outcome.violated is None:
            continue
        failed += 1
        print(f"seed {seed} after {time.monotonic() - began_s:.1f} s: {outcome.detail[:300]}", flush=True)
        if not options.keep_going:
            print(report(simulate(shrunk(outcome.plan, outcome.violated, smaller=smaller))))
            break
    took_s = time.monotonic() - began_s
    print(f"{options.seeds} seeds from {options.first}, {requests} requests, {failed} failed, {took_s:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
