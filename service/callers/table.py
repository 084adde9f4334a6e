"""The table of callers, built from the settings: one value, replaced as a whole by a reload."""

import hashlib
import math
from collections.abc import Mapping

import msgspec

from service.callers.tokens import TokenTrust
from service.model.callers import Caller
from service.model.queries import At, parse_moment
from service.settings import BudgetSettings, KeySettings, PolicySettings, Settings

ANONYMOUS = "anonymous"
"""The name shared by all callers under `auth: none`."""
UNKNOWN = "~unknown"
"""All service accounts that no caller names, as one caller with one share of the turns and one metric label."""


class CallerKey(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's key, stored as its SHA-256; valid before `until_s`, in seconds since the epoch."""

    digest: bytes
    caller: Caller | None
    until_s: float


NO_KEY = CallerKey(digest=hashlib.sha256(b"").digest(), caller=None, until_s=-math.inf)


class CallerTable(msgspec.Struct, frozen=True, kw_only=True):
    """Callers by credential. `trust` is None without tokens; `unknown` is None if unnamed accounts are rejected."""

    keys: Mapping[bytes, CallerKey]
    accounts: Mapping[str, Caller]
    trust: TokenTrust | None = None
    unknown: Caller | None = None
    anonymous: Caller | None = None


def table_of(settings: Settings) -> CallerTable:
    """Return the table described by the settings. Raise ValueError if two callers share a key or an account."""
    keys: dict[bytes, CallerKey] = {}
    accounts: dict[str, Caller] = {}
    tokens = settings.service_accounts
    every = frozenset(settings.apps)
    for name, known in settings.callers.items():
        caller = caller_of(name, known, budget=settings.budget, apps=every)
        for entry in known.keys:
            key = _key_of(entry, caller)
            if (other := keys.setdefault(key.digest, key)).caller != caller:
                raise ValueError(f"the callers {other.caller.name if other.caller else ''} and {name} share a key")
        for account in known.service_accounts:
            if (first := accounts.setdefault(account, caller)) is not caller:
                raise ValueError(f"the callers {first.name} and {name} share a service account")
    return CallerTable(
        keys=keys,
        accounts=accounts,
        trust=None if tokens is None else TokenTrust(issuer=tokens.issuer, audience=tokens.audience),
        unknown=None
        if tokens is None or tokens.unknown is None
        else caller_of(UNKNOWN, tokens.unknown, budget=settings.budget, apps=every),
        anonymous=_anonymous(settings) if settings.auth == "none" else None,
    )


def caller_of(name: str, policy: PolicySettings, *, budget: BudgetSettings, apps: frozenset[str]) -> Caller:
    """Return a caller from its policy; `apps` are all apps, whose existence an operator may know of."""
    return Caller(
        name=name,
        apps=frozenset(policy.apps),
        weight=policy.weight,
        waiting_max=budget.waiting_max if policy.waiting_max is None else policy.waiting_max,
        wait_max_s=budget.wait_max_s if policy.wait_max_s is None else policy.wait_max_s,
        may_force=policy.may_force,
        operator=policy.operator,
        knows=apps if policy.operator else frozenset(),
    )


def key_expiry_s(until: str) -> int:
    """Return when a key expires, in seconds since the epoch. Raise ValueError with a text for the operator."""
    try:
        moment = parse_moment(until)
    except ValueError:
        moment = None
    match moment:
        case At(epoch_s=epoch_s):
            return epoch_s
    raise ValueError("must be a date or an instant: 2027-01-01 or 2027-01-01T12:00:00Z")


def _key_of(entry: str | KeySettings, caller: Caller) -> CallerKey:
    match entry:
        case str(sha256):
            return CallerKey(digest=bytes.fromhex(sha256), caller=caller, until_s=math.inf)
        case KeySettings(sha256=sha256, until=until):
            until_s = math.inf if until is None else key_expiry_s(until)
            return CallerKey(digest=bytes.fromhex(sha256), caller=caller, until_s=until_s)


def _anonymous(settings: Settings) -> Caller:
    policy = PolicySettings(apps=tuple(settings.apps), operator=True)
    return caller_of(ANONYMOUS, policy, budget=settings.budget, apps=frozenset(settings.apps))
