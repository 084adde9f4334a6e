"""The callers of the gateway, and their permissions."""

import math

import msgspec


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """An internal service, identified by its credential.

    `weight` is its share of an app's turns relative to other callers'; `waiting_max` how many blocks it may wait for at
    a time on one replica; `wait_max_s` the longest patience it may request. An operator sees all budgets; `knows` are
    the apps whose existence it may know of, even if it may not read them.
    """

    name: str
    apps: frozenset[str]
    weight: float
    waiting_max: int
    wait_max_s: float
    may_force: bool = True
    operator: bool = False
    knows: frozenset[str] = frozenset()


class Authenticated(msgspec.Struct, frozen=True, kw_only=True):
    """A caller whose credential was verified. It is valid before `until_s`, in seconds since the epoch."""

    caller: Caller
    until_s: float = math.inf


class AppInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An app as its callers see it. `region` is null where a base URL is configured instead."""

    name: str
    region: str | None
