"""Decides when to call a server that has just failed. A pure policy; times are seconds on a monotonic clock."""

import msgspec

from service.model.errors import StoreDetail


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """A server's known health. `detail` is None while it is considered healthy.

    After a failure no calls are made until `closed_until_s`; then one call at a time probes, each given `probe_s` to
    end.
    """

    detail: StoreDetail | None = None
    closed_until_s: float = 0.0
    rest_s: float = 0.2
    probe_s: float = 1.0

    def refusal(self, now_s: float) -> StoreDetail | None:
        """Return why a call would be refused now, or None if it is allowed."""
        return self.detail if now_s < self.closed_until_s else None

    def admitted(self, now_s: float) -> "Breaker":
        """Record that a call was allowed: after a failure, it is the probe, and other calls are refused."""
        if self.detail is None:
            return self
        return msgspec.structs.replace(self, closed_until_s=now_s + self.probe_s)

    def failed(self, now_s: float, detail: StoreDetail, *, probe: bool) -> "Breaker":
        """Record a failure. If the server is already known to have failed, only a failed probe prolongs the pause."""
        if self.detail is not None and not probe:
            return self
        return msgspec.structs.replace(self, detail=detail, closed_until_s=now_s + self.rest_s)

    def answered(self) -> "Breaker":
        """Record any answer, even an error reply: the server is up."""
        return self if self.detail is None else msgspec.structs.replace(self, detail=None, closed_until_s=0.0)
