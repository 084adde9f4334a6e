"""For each alert: what fires it, when it must not fire yet, and what must not fire it; `make test-alerts` runs them."""

from collections.abc import Mapping
from typing import Any

import msgspec

NAMESPACE, JOB = "prod", "tg-taskgate-metrics"
Series = dict[str, str]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Series with a sample at each interval, and when an alert is silent and when it fires with them."""

    name: str
    series: tuple[Series, ...]
    alert: str
    silent_at: str | None = None
    fires_at: str | None = None
    labels: Mapping[str, str] = {}
    interval: str = "1m"


def series(metric: str, values: str, *, pod: str = "a", **labels: str) -> Series:
    """One series, as promtool's notation has it."""
    named = {"namespace": NAMESPACE, "job": JOB, "pod": pod} | labels
    return {
        "series": metric + "{" + ",".join(f'{key}="{value}"' for key, value in named.items()) + "}",
        "values": values,
    }


def durations(metric: str, *, quick: int, slow: int, **labels: str) -> tuple[Series, ...]:
    """A histogram: so many a minute take up to 0.1 s, and so many between that and 0.25 s."""
    counts = {"0.05": quick, "0.1": quick, "0.25": quick + slow, "0.5": quick + slow, "+Inf": quick + slow}
    return tuple(series(f"{metric}_bucket", f"0+{count}x60", le=le, **labels) for le, count in counts.items())


def _calls(result: str, values: str, *, call: str = "list") -> Series:
    return series("taskgate_upstream_calls_total", values, app="shop", call=call, region="china", result=result)


def _requests(outcome: str, values: str) -> Series:
    return series("taskgate_caller_requests_total", values, caller="reports", app="shop", outcome=outcome)


def _stopped(values: str) -> Series:
    return series("taskgate_calls_stopped", values, app="shop", call="list")


def _answers(status: str, values: str, *, outcome: str = "none") -> Series:
    return series("taskgate_requests_total", values, route="/tasks", method="GET", status=status, outcome=outcome)


def _waits(values: str, *, in_time: str) -> tuple[Series, ...]:
    """Waits in line, and those of 5 s at most."""
    waits = {"caller": "reports", "app": "shop", "outcome": "fetched"}
    return (
        series("taskgate_line_wait_seconds_count", values, **waits),
        series("taskgate_line_wait_seconds_bucket", in_time, le="5.0", **waits),
    )


def _key(key: str, values: str) -> Series:
    return series("taskgate_key_expiry_timestamp_seconds", values, caller="reports", key=key)


def _certificate(values: str) -> Series:
    return series("taskgate_certificate_expiry_timestamp_seconds", values, file="redis.cert_file")


DAY_S = 86_400
SHOP = {"app": "shop"}
LISTS = {"app": "shop", "call": "list"}
REPLICA = {"namespace": NAMESPACE, "job": JOB, "pod": "a"}
SLOTS = series("taskgate_slots", "5x60", app="shop", call="list")

CASES = (
    Case(
        name="no replica is there",
        series=(series("taskgate_ready", "1x5 _x55"),),
        alert="TaskgateDown",
        silent_at="8m",
        fires_at="20m",
    ),
    Case(
        name="one of two is not ready",
        series=(series("taskgate_ready", "0x60"), series("taskgate_ready", "1x60", pod="b")),
        alert="TaskgateDown",
        silent_at="20m",
    ),
    Case(
        name="only another release is there",
        series=(series("taskgate_ready", "1x60", namespace="other"),),
        alert="TaskgateDown",
        fires_at="20m",
    ),
    Case(
        name="a replica does not answer",
        series=(series("up", "1x5 0x55"),),
        alert="TaskgateReplicaUnseen",
        silent_at="9m",
        fires_at="20m",
        labels=REPLICA,
    ),
    Case(name="faults", series=(_answers("500", "0+6x60"),), alert="TaskgateFaults", silent_at="3m", fires_at="20m"),
    Case(name="no fault", series=(_answers("503", "0+6x60"),), alert="TaskgateFaults", silent_at="20m"),
    Case(
        name="all slots are used",
        series=(SLOTS, series("taskgate_worst_window_calls", "5x60", app="shop", call="list")),
        alert="TaskgateBudgetExceeded",
        silent_at="20m",
    ),
    Case(
        name="one call too many",
        series=(SLOTS, series("taskgate_worst_window_calls", "6x60", app="shop", call="list")),
        alert="TaskgateBudgetExceeded",
        fires_at="20m",
        labels=LISTS,
    ),
    Case(
        name="one of two replicas has stopped",
        series=(
            series("taskgate_calls_stopped", "0x60", app="shop", call="list"),
            series("taskgate_calls_stopped", "1x60", pod="b", app="shop", call="list"),
        ),
        alert="TaskgateCallsStopped",
        fires_at="20m",
        labels=LISTS,
    ),
    Case(
        name="a third of the calls fail",
        series=(_calls("ok", "0+200x60"), _calls("timeout", "0+100x60")),
        alert="TaskgateUpstreamFailing",
        silent_at="4m",
        fires_at="20m",
        labels=LISTS,
    ),
    Case(
        name="calls for single tasks fail, among many more for lists",
        series=(_calls("ok", "0+1000x60"), _calls("timeout", "0+10x60", call="get")),
        alert="TaskgateUpstreamFailing",
        fires_at="20m",
        labels={"app": "shop", "call": "get"},
    ),
    Case(
        name="callers ask for what the upstream refuses",
        series=(_calls("ok", "0+200x60"), _calls("caller_fault", "0+100x60")),
        alert="TaskgateUpstreamFailing",
        silent_at="20m",
    ),
    Case(
        name="a call fails every four minutes, and hardly another is made",
        series=(_calls("ok", "0x60"), _calls("timeout", " ".join(f"{number}x3" for number in range(12)))),
        alert="TaskgateUpstreamFailing",
        silent_at="30m",
    ),
    Case(
        name="calls have stopped, and the one that is tried each minute fails",
        series=(
            _calls("ok", "0x60"),
            _calls("credentials", "0+1x60"),
            _stopped("0 1 1 0 1x56"),
        ),
        alert="TaskgateUpstreamFailing",
        silent_at="20m",
    ),
    Case(name="no call is made", series=(_calls("timeout", "7x60"),), alert="TaskgateUpstreamFailing", silent_at="20m"),
    Case(
        name="the upstream says too often",
        series=(_calls("throttled", "0x10 1+1x50"),),
        alert="TaskgateThrottled",
        silent_at="10m",
        fires_at="25m",
        labels=LISTS,
    ),
    Case(
        name="one of two replicas has lost Redis",
        series=(series("taskgate_redis_up", "1x60"), series("taskgate_redis_up", "0x60", pod="b")),
        alert="TaskgateRedisAway",
        fires_at="20m",
    ),
    Case(
        name="Redis is slow",
        series=durations("taskgate_redis_call_duration_seconds", quick=90, slow=10, op="script"),
        alert="TaskgateRedisSlow",
        silent_at="8m",
        fires_at="30m",
    ),
    Case(
        name="Redis is quick",
        series=durations("taskgate_redis_call_duration_seconds", quick=100, slow=0, op="script"),
        alert="TaskgateRedisSlow",
        silent_at="30m",
    ),
    Case(
        name="a tenth is refused",
        series=(_requests("hit", "0+90x60"), _requests("refused", "0+10x60")),
        alert="TaskgateCallersRefused",
        silent_at="8m",
        fires_at="30m",
        labels=SHOP,
    ),
    Case(
        name="few are refused",
        series=(_requests("hit", "0+98x60"), _requests("refused", "0+2x60")),
        alert="TaskgateCallersRefused",
        silent_at="30m",
    ),
    Case(
        name="callers ask for what is stored, or not to wait",
        series=(_requests("hit", "0+60x60"), _requests("declined", "0+40x60")),
        alert="TaskgateCallersRefused",
        silent_at="30m",
    ),
    Case(
        name="the loop is in time",
        series=durations("taskgate_event_loop_lag_seconds", quick=240, slow=0),
        alert="TaskgateLoopLate",
        silent_at="30m",
    ),
    Case(
        name="the loop is late",
        series=durations("taskgate_event_loop_lag_seconds", quick=230, slow=10),
        alert="TaskgateLoopLate",
        silent_at="8m",
        fires_at="30m",
        labels={"pod": "a"},
    ),
    Case(
        name="a reload is refused, and the file stays as it is",
        series=(series("taskgate_config_last_reload_successful", "1x10 0x110"),),
        alert="TaskgateReloadRefused",
        silent_at="9m",
        fires_at="2h",
        labels=REPLICA,
    ),
    Case(
        name="a refused configuration is mended",
        series=(series("taskgate_config_last_reload_successful", "1x10 0x10 1x40"),),
        alert="TaskgateReloadRefused",
        silent_at="25m",
        fires_at="15m",
        labels=REPLICA,
    ),
    Case(
        name="the configuration is taken",
        series=(series("taskgate_config_last_reload_successful", "1x60"),),
        alert="TaskgateReloadRefused",
        silent_at="20m",
    ),
    Case(
        name="the upstream never says too often",
        series=(_calls("ok", "0+200x60"), _calls("throttled", "0x60")),
        alert="TaskgateThrottled",
        silent_at="25m",
    ),
    Case(
        name="a replica answers",
        series=(series("up", "1x60"),),
        alert="TaskgateReplicaUnseen",
        silent_at="20m",
    ),
    Case(
        name="calls are made again",
        series=(_stopped("1x10 0x50"),),
        alert="TaskgateCallsStopped",
        silent_at="20m",
    ),
    Case(
        name="all replicas have Redis",
        series=(series("taskgate_redis_up", "1x60"), series("taskgate_redis_up", "1x60", pod="b")),
        alert="TaskgateRedisAway",
        silent_at="20m",
    ),
    Case(
        name="a setting waits for a restart",
        series=(series("taskgate_restart_needed", "0x10 1x110"),),
        alert="TaskgateRestartNeeded",
        silent_at="38m",
        fires_at="60m",
        labels=REPLICA,
    ),
    Case(
        name="a rollout follows the change",
        series=(series("taskgate_restart_needed", "0x10 1x5 _x100"),),
        alert="TaskgateRestartNeeded",
        silent_at="60m",
    ),
    Case(
        name="a caller's last key ends within two weeks",
        series=(_key("aaaaaaaa", "600000x60"), _key("bbbbbbbb", f"{14 * DAY_S + 1800}x60")),
        alert="TaskgateKeyEndsSoon",
        silent_at="20m",
        fires_at="40m",
        labels={"caller": "reports"},
    ),
    Case(
        name="a caller has another key without an end",
        series=(_key("aaaaaaaa", "600x60"), _key("bbbbbbbb", "Inf " * 60)),
        alert="TaskgateKeyEndsSoon",
        silent_at="40m",
    ),
    Case(
        name="a certificate ends within two weeks",
        series=(_certificate(f"{14 * DAY_S + 1800}x60"),),
        alert="TaskgateCertificateEndsSoon",
        silent_at="20m",
        fires_at="40m",
        labels={"file": "redis.cert_file"},
    ),
    Case(
        name="a certificate is renewed in time",
        series=(_certificate(f"{14 * DAY_S + 1800}x20 {90 * DAY_S}x40"),),
        alert="TaskgateCertificateEndsSoon",
        silent_at="40m",
    ),
    Case(
        name="a clock is behind Redis'",
        series=(series("taskgate_clock_skew_seconds", "-6x60"),),
        alert="TaskgateClockOff",
        silent_at="8m",
        fires_at="20m",
        labels={"pod": "a"},
    ),
    Case(
        name="a clock is ahead of the upstream's",
        series=(
            series("taskgate_clock_skew_seconds", "0.5x60"),
            series("taskgate_upstream_clock_skew_seconds", "40x60", app="shop"),
        ),
        alert="TaskgateClockOff",
        fires_at="20m",
        labels={"pod": "a", "app": "shop"},
    ),
    Case(
        name="clocks differ by a second or two",
        series=(
            series("taskgate_clock_skew_seconds", "-0.5x60"),
            series("taskgate_upstream_clock_skew_seconds", "-2x60", app="shop"),
        ),
        alert="TaskgateClockOff",
        silent_at="40m",
    ),
    Case(
        name="lines of the log can't be written",
        series=(series("taskgate_log_lines_lost_total", "0x10 0+7x50", reason="not written"),),
        alert="TaskgateLogLinesLost",
        silent_at="14m",
        fires_at="25m",
        labels={"pod": "a", "reason": "not written"},
    ),
    Case(
        name="lines were lost an hour ago",
        series=(series("taskgate_log_lines_lost_total", "0x5 9x100", reason="not written"),),
        alert="TaskgateLogLinesLost",
        silent_at="60m",
    ),
    Case(
        name="a tenth fails, after an hour in which nothing did",
        series=(_answers("200", "0+90x180", outcome="hit"), _answers("502", "0x60 10+10x120")),
        alert="TaskgateErrorBudgetBurnsFast",
        silent_at="65m",
        fires_at="115m",
        labels={"slo": "availability", "job": JOB},
    ),
    Case(
        name="as much fails as the objective allows",
        series=(_answers("200", "0+995x180", outcome="hit"), _answers("502", "0+5x180")),
        alert="TaskgateErrorBudgetBurnsFast",
        silent_at="2h",
    ),
    Case(
        name="everything fails, but hardly anybody asks",
        series=(_answers("200", "0x180", outcome="hit"), _answers("502", "0x60 1x30 2x30 3x60")),
        alert="TaskgateErrorBudgetBurnsFast",
        silent_at="2h",
    ),
    Case(
        name="callers are refused or decline",
        series=(
            _answers("200", "0+50x180", outcome="hit"),
            _answers("503", "0+40x180", outcome="refused"),
            _answers("504", "0+10x180", outcome="declined"),
        ),
        alert="TaskgateErrorBudgetBurnsFast",
        silent_at="2h",
    ),
    Case(
        name="a third of the pages is stale for want of a fetch",
        series=(_requests("hit", "0+20x180"), _requests("fallback", "0+10x180")),
        alert="TaskgateErrorBudgetBurnsFast",
        fires_at="2h",
        labels={"slo": "freshness", "job": JOB} | SHOP,
    ),
    Case(
        name="a third of the pages is stale and being renewed",
        series=(_requests("hit", "0+20x180"), _requests("stale", "0+10x180")),
        alert="TaskgateErrorBudgetBurnsFast",
        silent_at="2h",
    ),
    Case(
        name="two of a hundred are refused, day after day",
        series=(_requests("hit", "0+980x432"), _requests("refused", "0+20x432")),
        alert="TaskgateErrorBudgetBurnsSlowly",
        fires_at="71h",
        labels={"slo": "wait", "job": JOB} | SHOP,
        interval="10m",
    ),
    Case(
        name="two of a hundred wait too long, day after day",
        series=(
            _requests("hit", "0+900x432"),
            _requests("fetched", "0+100x432"),
            *_waits("0+100x432", in_time="0+80x432"),
        ),
        alert="TaskgateErrorBudgetBurnsSlowly",
        fires_at="71h",
        labels={"slo": "wait", "job": JOB} | SHOP,
        interval="10m",
    ),
    Case(
        name="everybody waits, but not for long",
        series=(_requests("fetched", "0+100x432"), *_waits("0+100x432", in_time="0+100x432")),
        alert="TaskgateErrorBudgetBurnsSlowly",
        silent_at="71h",
        interval="10m",
    ),
    Case(
        name="a bad hour that is over",
        series=(_requests("hit", "0+980x432"), _requests("refused", "0x6 0+500x6 3000x420")),
        alert="TaskgateErrorBudgetBurnsSlowly",
        silent_at="71h",
        interval="10m",
    ),
)


def as_promtool(case: Case, rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return the case in the form of promtool's tests. The rule's own labels are added to those that are expected."""
    fires = [{"exp_labels": dict(case.labels) | rule["labels"]}]
    times = [(case.silent_at, []), (case.fires_at, fires)]
    return {
        "name": case.name,
        "interval": case.interval,
        "input_series": list(case.series),
        "alert_rule_test": [
            {"eval_time": at, "alertname": case.alert, "exp_alerts": alerts} for at, alerts in times if at
        ],
    }
