"""All errors, as one tree; `web/problems/from_errors.py` turns each leaf into an RFC 9457 problem.

TaskgateError
├── BadRequest                 the caller's parameters, all faults at once
├── Unauthenticated            a missing or unknown credential
│   └── SigningKeyUnknown      a token that may be valid: re-fetching the issuer's keys may bring its key
├── KeysUnavailable            a token, and no key to verify any with
├── UnknownApp                 no such app, or one whose existence is hidden from this caller
├── UnknownTask                the app has no task with this id
├── NotAllowed                 the caller may not do this
├── StreamTooLong              a stream has reached its bound, and the list continues
├── Refused                    no fetch for this caller now; there may be one later
│   ├── WaitTooLong            the turn would come after the caller's patience
│   ├── LineFull               the caller has too many requests waiting
│   ├── NothingStored          the caller accepts stored answers only, and there is none
│   ├── TooManyWatchers        the bound on watched lists is reached
│   └── ShuttingDown           this replica is shutting down
├── RangeTooWide               the list has more tasks than are gathered for one request
├── StoreUnavailable           Redis can't be reached, refuses, or does not answer
└── UpstreamError              a fetch has failed
    ├── UpstreamTimeout        no answer in time
    ├── UpstreamUnreachable    no connection could be made: the call did not reach the upstream
    ├── UpstreamBroken         an answer that is not what the upstream's page promises
    ├── UpstreamHTTPStatus     an HTTP status other than 200
    └── UpstreamRefused        an error code in the answer
        ├── QueryRefused       the caller's parameters were refused (90104)
        ├── CallsStopped       our credentials or account are at fault: no call until that changes
        └── Throttled          called too often
"""

from typing import Literal

import msgspec

from service.model.budgets import BudgetNote

WATCH_RETRY_S = 30.0
"""When to retry if there are too many watchers: watches last long."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of one parameter, described without repeating the caller's value."""

    parameter: str
    detail: str


class TaskgateError(Exception):
    """The root of all errors that Taskgate raises. `budget` is the app's, if the request needed it."""

    budget: BudgetNote | None = None


class BadRequest(TaskgateError):
    """Invalid parameters, with every fault."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(f"{fault.parameter}: {fault.detail}" for fault in faults))
        self.faults = faults


class Unauthenticated(TaskgateError):
    """A missing or unknown credential. Says whether there was one, but not why it was rejected."""

    def __init__(self, *, presented: bool = False) -> None:
        super().__init__()
        self.presented = presented


class SigningKeyUnknown(Unauthenticated):
    """A token signed with an unknown key."""


class KeysUnavailable(TaskgateError):
    """Tokens can't be verified: none of the issuer's keys has been fetched yet."""


class UnknownApp(TaskgateError):
    """An app that does not exist, or whose existence is hidden from this caller."""


class UnknownTask(TaskgateError):
    """The upstream has no task with this id, or had none a short while ago."""


class NotAllowed(TaskgateError):
    """The caller is known, but may not do this."""


class StreamTooLong(TaskgateError):
    """A stream has sent the maximum number of tasks; the rest takes another request."""

    def __init__(self, *, bound: int) -> None:
        super().__init__(f"a stream covers at most {bound} tasks")
        self.bound = bound


class Refused(TaskgateError):
    """No fetch for this caller now. `retry_after_s` says when to retry; None if a retry won't help."""

    def __init__(self, detail: str, *, retry_after_s: float | None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class WaitTooLong(Refused):
    """The turn would come after the caller's patience has run out.

    `place` counts from 1; `estimate_s` is the expected wait for the turn from now on, in seconds, `waited_s` the time
    already waited. An estimate may be a fifth too short: `retry_after_s` allows for that, so that a caller that retries
    then, with the same patience, gets a turn if nothing else has changed.
    """

    def __init__(self, *, place: int, estimate_s: float, patience_s: float, waited_s: float = 0.0) -> None:
        left_s = max(estimate_s, 0.1)
        lacking_s = max(waited_s + left_s - patience_s, 0.1)
        if waited_s < 0.05:
            text = f"place {place} in line: the turn is expected in {left_s:.1f} s"
        else:
            text = f"no turn has come in {waited_s:.1f} s; at place {place} in line one is expected in {left_s:.1f} s"
        super().__init__(
            f"{text}, {lacking_s:.1f} s later than the patience of {patience_s:g} s allows",
            retry_after_s=max(estimate_s * 1.25 + 0.5 - patience_s, 1.0),
        )
        self.place = place
        self.estimate_s = estimate_s
        self.patience_s = patience_s
        self.waited_s = waited_s


class LineFull(Refused):
    """The caller has reached its `bound` of waiting blocks."""

    def __init__(self, *, bound: int, retry_after_s: float) -> None:
        super().__init__(f"{bound} blocks of this caller are already waiting", retry_after_s=retry_after_s)
        self.bound = bound


class NothingStored(Refused):
    """The caller accepts stored answers only (`Cache-Control: only-if-cached`, `Prefer: wait=0`), and there is none.

    Such a request never triggers a fetch, so repeating it would not help either.
    """

    def __init__(self) -> None:
        super().__init__("no stored answer satisfies the request", retry_after_s=None)


class ShuttingDown(Refused):
    """This replica is shutting down and gives up its line."""

    def __init__(self) -> None:
        super().__init__("this replica is shutting down", retry_after_s=1.0)


StoreDetail = Literal[
    "unreachable",
    "certificate not trusted",
    "TLS failed",
    "timed out",
    "busy",
    "read-only",
    "out of memory",
    "refused",
    "script refused",
    "loading",
    "cluster down",
    "broken answer",
    "newer release",
    "closed",
]


class RangeTooWide(TaskgateError):
    """The list has `total` tasks, more than the `bound` on tasks gathered for one request."""

    def __init__(self, *, total: int, bound: int) -> None:
        super().__init__(
            f"the range holds {total} tasks; at most {bound} are collected for one request: "
            "narrow since and until, or stream the list"
        )
        self.total = total
        self.bound = bound


class TooManyWatchers(Refused):
    """The bound on watched lists is reached, for this caller or on this replica."""

    def __init__(self, *, bound: int, of: str = "lists") -> None:
        super().__init__(f"at most {bound} {of} may be watched at once", retry_after_s=WATCH_RETRY_S)
        self.bound = bound


class StoreUnavailable(TaskgateError):
    """Redis can't be reached, refuses the command, or does not answer in time. `detail` holds no keys and no values."""

    def __init__(self, detail: StoreDetail) -> None:
        super().__init__(f"Redis is unavailable: {detail}")
        self.detail: StoreDetail = detail


class UpstreamError(TaskgateError):
    """A fetch for `app` has failed. `sent` is false if the call certainly never reached the upstream."""

    sent = True

    def __init__(self, detail: str, *, app: str) -> None:
        super().__init__(detail)
        self.app = app


class UpstreamTimeout(UpstreamError):
    """No answer within the call's timeout."""


class UpstreamUnreachable(UpstreamError):
    """No connection: the name did not resolve, the connection was refused, or the call was not sent in time."""

    sent = False


class UpstreamBroken(UpstreamError):
    """An unreadable answer: not JSON, cut off, too large, a field missing or of the wrong type.

    `repeats` says that the answer was complete: the same call would most likely get the same answer.
    """

    def __init__(self, detail: str, *, app: str, repeats: bool = False) -> None:
        super().__init__(detail, app=app)
        self.repeats = repeats


class UpstreamHTTPStatus(UpstreamError):
    """An HTTP status other than 200, which the upstream's page rules out except for network faults.

    `retry_after_s` is the value of its `Retry-After`, None without one.
    """

    def __init__(self, status: int, *, app: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"the upstream answered with HTTP status {status}", app=app)
        self.status = status
        self.retry_after_s = retry_after_s


class UpstreamRefused(UpstreamError):
    """An error code. `code` and `text` are the upstream's own (`text` bounded), `advice` is ours for operators."""

    def __init__(self, *, app: str, code: int, text: str, advice: str) -> None:
        super().__init__(f"the upstream refused with code {code}: {text}", app=app)
        self.code = code
        self.text = text
        self.advice = advice


class QueryRefused(UpstreamRefused):
    """The upstream refused the caller's parameters (90104): the same query will be refused again."""


class CallsStopped(UpstreamRefused):
    """Credentials, account or package are at fault. No call for this app for `stopped_for_s`, or until they change."""

    def __init__(self, *, app: str, code: int, text: str, advice: str, stopped_for_s: float) -> None:
        super().__init__(app=app, code=code, text=text, advice=advice)
        self.stopped_for_s = stopped_for_s


class Throttled(UpstreamRefused):
    """The upstream reports too many calls: the budget pauses."""
