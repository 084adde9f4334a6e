"""Cases for alerts, the series that they consist of, and their form for promtool."""

from collections.abc import Mapping
from typing import Any

import msgspec

NAMESPACE, JOB = "prod", "tg-taskgate-metrics"
DAY_S = 86_400
SHOP = {"app": "shop"}
LISTS = {"app": "shop", "call": "list"}
REPLICA = {"namespace": NAMESPACE, "job": JOB, "pod": "a"}
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
    """Return a histogram: `quick` a minute take up to 0.1 s, and `slow` between that and 0.25 s."""
    counts = {"0.05": quick, "0.1": quick, "0.25": quick + slow, "0.5": quick + slow, "+Inf": quick + slow}
    return tuple(series(f"{metric}_bucket", f"0+{count}x60", le=le, **labels) for le, count in counts.items())


def calls(result: str, values: str, *, call: str = "list") -> Series:
    return series("taskgate_upstream_calls_total", values, app="shop", call=call, region="china", result=result)


def requests(outcome: str, values: str) -> Series:
    return series("taskgate_caller_requests_total", values, caller="reports", app="shop", outcome=outcome)


def stopped(values: str) -> Series:
    return series("taskgate_calls_stopped", values, app="shop", call="list")


def answers(status: str, values: str, *, outcome: str = "none") -> Series:
    return series("taskgate_requests_total", values, route="/tasks", method="GET", status=status, outcome=outcome)


def waits(values: str, *, in_time: str) -> tuple[Series, ...]:
    """Waits in line, and those of 5 s at most."""
    waits = {"caller": "reports", "app": "shop", "outcome": "fetched"}
    return (
        series("taskgate_line_wait_seconds_count", values, **waits),
        series("taskgate_line_wait_seconds_bucket", in_time, le="5.0", **waits),
    )


def key(key: str, values: str) -> Series:
    return series("taskgate_key_expiry_timestamp_seconds", values, caller="reports", key=key)


def certificate(values: str) -> Series:
    return series("taskgate_certificate_expiry_timestamp_seconds", values, file="redis.cert_file")


SLOTS = series("taskgate_slots", "5x60", app="shop", call="list")


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
