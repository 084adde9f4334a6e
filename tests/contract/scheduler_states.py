"""Compares the state stored by the script with the model's."""

from collections import Counter
from typing import Any

import msgspec
import redis

from service.budget.scheduler.policy.steps import Policy


def compare(client: redis.Redis, policy: Policy) -> None:
    """Assert that both have the same slots, callers, shares, reports and flights."""
    packed = client.get("tg:{news}:slots")
    assert (packed is None) == (not policy.slots)
    if packed is None:
        return
    state = msgspec.msgpack.decode(packed)
    del state[3]  # the run: each server's own
    assert state[1:10] == [
        policy.now,
        policy.raw,
        policy.epoch,
        policy.virtual,
        policy.next_id,
        policy.purge_at,
        policy.held,
        policy.pause_until,
        policy.pause_reason,
    ]
    assert [slot[0] for slot in state[10]] == [slot.free_at for slot in policy.slots]
    assert [slot[2] for slot in state[10]] == [slot.turn for slot in policy.slots]
    callers = {
        name.decode(): msgspec.msgpack.decode(packed) for name, packed in client.hgetall("tg:{news}:tags").items()
    }
    tags = {name: (each[4], each[5] == 2) for name, each in callers.items() if each[5]}
    assert tags == {name: (tag.value, tag.active) for name, tag in policy.tags.items()}
    reported = [(name, caller, each) for name, report in policy.reports.items() for caller, each in report.rows.items()]
    waits: Counter[str] = Counter()
    for _, caller, each in reported:
        waits[caller] += each.count
    assert {name: each[1] for name, each in callers.items() if each[1]} == dict(+waits)
    shares = {
        (share[0].decode() if isinstance(share[0], bytes) else share[0], caller.decode()): tuple(share[1:])
        for caller, packed in client.hgetall("tg:{news}:shares").items()
        for share in msgspec.msgpack.decode(packed)
    }
    assert shares == {
        (name, caller): (each.weight, each.count, each.since, each.background)
        for name, caller, each in reported
        if each.count
    }
    _compare_order(client, callers, state[11])
    assert {name.decode() for name in client.hkeys("tg:{news}:flights")} == set(policy.flights)
    assert {name.decode() for name in client.hkeys("tg:{news}:reports")} == set(policy.reports)


def _compare_order(client: redis.Redis, callers: dict[str, list[Any]], sums: list[int]) -> None:
    """The order has each caller once, with waiting callers first and in turn; the sums match them."""
    order = [place[17:].decode() for place in client.zrange("tg:{news}:order", 0, -1)]
    assert sorted(order) == sorted(callers)
    waiting = [name for name, each in callers.items() if each[1] and each[5] == 2]
    waiting.sort(key=lambda name: (callers[name][3], callers[name][4], callers[name][2], name))
    assert order[: len(waiting)] == waiting
    blocks = sum(each[1] for each in callers.values())
    urgent = sum(each[1] for each in callers.values() if not each[3])
    assert sums[:4] == [blocks, urgent, len(callers), client.hlen("tg:{news}:reports")]
