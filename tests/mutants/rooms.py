"""The rooms of mutants, and the tests that cover each: the quick ones first, because the first failure ends a run."""

from fnmatch import fnmatch

import msgspec

_HISTORIES = "tests/simulation/test_simulation.py::test_invariants_hold_for_each_seed[0]"
"""A tenth of the simulated histories: the others search for the same faults."""
_LINE = (
    "tests/unit/budget/test_queue.py",
    "tests/unit/budget/test_budget_estimate.py",
    "tests/simulation/test_line_work.py",
    "tests/simulation/test_line_answers.py",
    "tests/simulation/test_line_waits.py",
    "tests/simulation/test_line_losses.py",
    "tests/simulation/test_gateway.py",
    "tests/simulation/test_gateway_stale.py",
    "tests/simulation/test_gateway_paging.py",
    "tests/unit/budget/test_line.py",
    "tests/unit/budget/test_line_ticks.py",
    "tests/unit/budget/test_line_looks.py",
    "tests/unit/budget/test_line_failures.py",
    _HISTORIES,
)
_CONTRACT = (
    "tests/contract/test_scheduler.py",
    "tests/contract/test_scheduler_wishes.py",
    "tests/contract/test_scheduler_blocks.py",
    "tests/contract/test_scheduler_callers.py",
    "tests/contract/test_scheduler_clock.py",
)
_MODEL = (
    *_CONTRACT,
    "tests/contract/test_scheduler_losses.py",
    "tests/contract/test_scheduler_refunds.py",
    "tests/contract/test_scheduler_reports.py",
    "tests/unit/budget/test_policy_over_time.py",
    "tests/simulation/test_line_work.py",
    "tests/contract/test_scheduler_states.py",
    _HISTORIES,
)


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """Files, as patterns, and the tests that cover them."""

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]

    def holds(self, path: str) -> bool:
        """Return whether the room has this file."""
        return any(fnmatch(path, pattern) for pattern in self.files)


ROOMS = (
    Room(name="line", files=("service/budget/line/*.py",), tests=_LINE),
    Room(
        name="fallback",
        files=("service/budget/scheduler/fallback.py", "service/budget/scheduler/outage.py"),
        tests=(
            "tests/unit/budget/test_outage.py",
            "tests/unit/budget/test_fallback.py",
            "tests/integration/budget/test_redis_away.py",
        ),
    ),
    Room(
        name="script",
        files=("service/budget/scheduler/script/*.lua", "service/budget/scheduler/shared.py"),
        tests=(
            *_CONTRACT,
            "tests/contract/test_scheduler_losses.py",
            "tests/contract/test_scheduler_refunds.py",
            "tests/contract/test_scheduler_reports.py",
            "tests/contract/test_scheduler_order.py",
            "tests/contract/test_scheduler_sanity.py",
            "tests/contract/test_scheduler_states.py",
            "tests/integration/budget/test_redis_runs.py",
            "tests/contract/test_scheduler_over_time.py",
        ),
    ),
    Room(
        name="runs",
        files=("service/budget/scheduler/runs.py",),
        tests=(
            *_CONTRACT,
            "tests/contract/test_scheduler_reports.py",
            "tests/contract/test_scheduler_sanity.py",
            "tests/integration/budget/test_redis_runs.py",
        ),
    ),
    Room(
        name="model",
        files=("service/budget/scheduler/*.py",),
        tests=(
            "tests/unit/budget/test_budget_rules.py",
            "tests/unit/budget/test_report_changes.py",
            *_MODEL,
        ),
    ),
    Room(
        name="gateway",
        files=("service/gateway/*.py",),
        tests=(
            "tests/unit/gateway",
            "tests/simulation/test_gateway.py",
            "tests/simulation/test_gateway_stale.py",
            "tests/simulation/test_gateway_paging.py",
            "tests/simulation/test_gateway_fetch.py",
            "tests/simulation/test_gateway_parts.py",
            "tests/simulation/test_refusals.py",
            "tests/integration/cache/test_purge.py",
            "tests/integration/upstream/test_short_answers.py",
            "tests/integration/upstream/test_faults.py",
            "tests/integration/budget/test_budget_view.py",
            "tests/integration/telemetry/test_requests_counted.py",
            "tests/integration/telemetry/test_traces.py",
            "tests/integration/gateway",
        ),
    ),
    Room(
        name="cache",
        files=("service/cache/*.py",),
        tests=(
            "tests/unit/cache",
            "tests/simulation/test_block_reads.py",
            "tests/simulation/test_purge_messages.py",
            "tests/simulation/test_gateway_parts.py",
            "tests/simulation/test_gateway.py",
            "tests/simulation/test_gateway_stale.py",
            "tests/simulation/test_gateway_paging.py",
            "tests/integration/cache",
        ),
    ),
    Room(
        name="callers",
        files=("service/callers/*.py",),
        tests=(
            "tests/unit/callers",
            "tests/unit/configuration/test_live.py",
            "tests/integration/callers/test_sources.py",
            "tests/integration/callers/test_mounted.py",
        ),
    ),
    Room(
        name="responses",
        files=("service/web/response_cache.py",),
        tests=(
            "tests/http/test_response_cache.py",
            "tests/http/test_response_cache_key.py",
            "tests/http/test_repeated_heads.py",
            "tests/http/test_middleware.py",
        ),
    ),
)


def room_of(path: str) -> Room | None:
    """Return the first room that has this file."""
    return next((room for room in ROOMS if room.holds(path)), None)
