"""When to ask a server that has just failed: a pure policy; times are seconds on a monotonic clock."""

import msgspec

from service.model.errors import StoreDetail


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a server's health. `detail` is None while it is thought well.

    After a failure nobody asks until `closed_until_s`; then one call at a time probes, each given `probe_s` to end.
    """

    detail: StoreDetail | None = None
    closed_until_s: float = 0.0
    rest_s: float = 0.2
    probe_s: float = 1.0

    def refusal(self, now_s: float) -> StoreDetail | None:
        """Why a call would be refused now; None where it may go."""
        return self.detail if now_s < self.closed_until_s else None

    def admitted(self, now_s: float) -> "Breaker":
        """After a call was let through: where the server was ill, that call is the probe and others keep away."""
        if self.detail is None:
            return self
        return msgspec.structs.replace(self, closed_until_s=now_s + self.probe_s)

    def failed(self, now_s: float, detail: StoreDetail, *, probe: bool) -> "Breaker":
        """After a failure. A late failure of a call sent before the first one was seen prolongs nothing."""
        if self.detail is not None and not probe:
            return self
        return msgspec.structs.replace(self, detail=detail, closed_until_s=now_s + self.rest_s)

    def answered(self) -> "Breaker":
        """After any answer, be it a refusal: the server is there."""
        return self if self.detail is None else msgspec.structs.replace(self, detail=None, closed_until_s=0.0)
