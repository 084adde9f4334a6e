"""What can go wrong, as one tree; `web/problems.py` turns each leaf into an RFC 9457 problem.

TaskgateError
├── BadRequest                 the caller's parameters, all faults at once
├── Unauthenticated            no credential, or one that we don't know
│   └── SigningKeyUnknown      a token that may be good: its key may be told when asked for anew
├── KeysUnavailable            a token, and no key to check any with
├── UnknownApp                 no such app, or none that this caller may know of
├── NotAllowed                 the caller may not do this
├── StreamTooLong              a stream has reached its bound, and the list goes on
├── Refused                    no fetch for this caller now; there may be one later
│   ├── WaitTooLong            the turn would come after the caller's patience
│   ├── LineFull               the caller has too many requests waiting
│   ├── NothingStored          the caller wanted only what is there, and there is nothing
│   ├── TooManyWatchers        as many lists are watched as may be
│   └── ShuttingDown           this replica leaves
├── RangeTooWide               the list has more tasks than are gathered for one request
├── StoreUnavailable           Redis can't be reached, refuses, or doesn't answer
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
"""When to try again where too many watch: watches last long."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong with one parameter, told without repeating what the caller sent."""

    parameter: str
    detail: str


class TaskgateError(Exception):
    """The root: whatever Taskgate itself raises. `budget` is the app's, where the request needed it."""

    budget: BudgetNote | None = None


class BadRequest(TaskgateError):
    """Parameters that can't be served, every fault of them."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(f"{fault.parameter}: {fault.detail}" for fault in faults))
        self.faults = faults


class Unauthenticated(TaskgateError):
    """No credential, or one that is not known. Tells whether there was one, and nothing of why it is not good."""

    def __init__(self, *, presented: bool = False) -> None:
        super().__init__()
        self.presented = presented


class SigningKeyUnknown(Unauthenticated):
    """A token signed with a key that we have not heard of."""


class KeysUnavailable(TaskgateError):
    """Tokens can't be checked: none of the issuer's keys has been had yet."""


class UnknownApp(TaskgateError):
    """An app that does not exist, or that this caller may not know of."""


class NotAllowed(TaskgateError):
    """The caller is known, but may not do this."""


class StreamTooLong(TaskgateError):
    """A stream has brought as many tasks of the list as one may; the rest takes another request."""

    def __init__(self, *, bound: int) -> None:
        super().__init__(f"one stream goes through {bound} tasks at most")
        self.bound = bound


class Refused(TaskgateError):
    """No fetch for this caller now. `retry_after_s` says when to try again; None: as it stands, that would not help."""

    def __init__(self, detail: str, *, retry_after_s: float | None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class WaitTooLong(Refused):
    """The turn would come after the caller's patience has ended.

    `place` counts from 1; `estimate_s` is the expected wait for the turn from now on, in seconds, `waited_s` what was
    waited before. An estimate may be a fifth too short: `retry_after_s` allows for that, so that whoever comes back
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
    """The caller has as many blocks waiting as it may (`bound`)."""

    def __init__(self, *, bound: int, retry_after_s: float) -> None:
        super().__init__(f"{bound} blocks of this caller wait already", retry_after_s=retry_after_s)
        self.bound = bound


class NothingStored(Refused):
    """The caller takes only what is there (`Cache-Control: only-if-cached`, `Prefer: wait=0`), and there is nothing.

    Nothing is fetched for such a request, so that another one would find nothing, too.
    """

    def __init__(self) -> None:
        super().__init__("no stored answer satisfies the request", retry_after_s=None)


class ShuttingDown(Refused):
    """This replica leaves and gives up its line."""

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
    """The list has `total` tasks, more than the `bound` that is gathered for one request."""

    def __init__(self, *, total: int, bound: int) -> None:
        super().__init__(
            f"the range holds {total} tasks; at most {bound} are gathered for one request: "
            "narrow since and until, or stream the list"
        )
        self.total = total
        self.bound = bound


class TooManyWatchers(Refused):
    """As many lists are watched as may be, by this caller or on this replica."""

    def __init__(self, *, bound: int) -> None:
        super().__init__(f"at most {bound} lists may be watched at once", retry_after_s=WATCH_RETRY_S)
        self.bound = bound


class StoreUnavailable(TaskgateError):
    """Redis can't be reached, refuses the command, or doesn't answer in time. `detail` holds no keys and no values."""

    def __init__(self, detail: StoreDetail) -> None:
        super().__init__(f"Redis is unavailable: {detail}")
        self.detail: StoreDetail = detail


class UpstreamError(TaskgateError):
    """A fetch for `app` has failed. `sent` is false where the call surely never reached the upstream."""

    sent = True

    def __init__(self, detail: str, *, app: str) -> None:
        super().__init__(detail)
        self.app = app


class UpstreamTimeout(UpstreamError):
    """No answer within the call's time-out."""


class UpstreamUnreachable(UpstreamError):
    """No connection: the name did not resolve, the connection was refused, or the call was not on its way in time."""

    sent = False


class UpstreamBroken(UpstreamError):
    """An answer that can't be read: not JSON, cut off, too large, a field missing or of the wrong type.

    `repeats` says that the answer came whole: the same call would most likely be answered the same way.
    """

    def __init__(self, detail: str, *, app: str, repeats: bool = False) -> None:
        super().__init__(detail, app=app)
        self.repeats = repeats


class UpstreamHTTPStatus(UpstreamError):
    """An HTTP status other than 200, which the upstream's page excludes but for network faults.

    `retry_after_s` is what its `Retry-After` says, None without one.
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
    """Credentials, account or package are at fault. No call for this app for `stopped_for_s`, or until it changes."""

    def __init__(self, *, app: str, code: int, text: str, advice: str, stopped_for_s: float) -> None:
        super().__init__(app=app, code=code, text=text, advice=advice)
        self.stopped_for_s = stopped_for_s


class Throttled(UpstreamRefused):
    """The upstream says that it was called too often: the budget pauses."""
