"""How one replica handles an outage of Redis under `on_redis_down: share`. Pure; times are seconds, monotonic."""

import msgspec


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """Whether Redis answers, whether this replica `shares` (uses its own part of the calls), and the quiet it owes.

    All replicas notice an outage or its end within `notice_s` of each other, since each probes Redis continually. One
    quiet tick takes all slots for `quiet_s`; if that is shorter than `notice_s`, quiet lasts longer: all ticks are
    quiet up to the first one after `owed_until_s`. A turn may have begun `ahead_s` before its call is sent, so quiet
    lasts longer by that, too. So no replica uses one budget while another still uses the other, at the start or the end
    of an outage.
    """

    grace_s: float
    notice_s: float
    quiet_s: float
    ahead_s: float
    failing_since_s: float | None = None
    shares: bool = False
    asked_s: float = 0.0
    owed_until_s: float | None = None

    def failed(self, *, asked_s: float, now_s: float) -> "Outage":
        """Record that a call sent to Redis at `asked_s` failed. Sharing begins once calls have failed for the grace
        period."""
        since_s = now_s if self.failing_since_s is None else self.failing_since_s
        failed = msgspec.structs.replace(self, failing_since_s=since_s, asked_s=asked_s)
        if self.shares or now_s - since_s < self.grace_s:
            return failed
        return msgspec.structs.replace(failed, shares=True, owed_until_s=now_s + self._rest_s)

    def answered(self, *, now_s: float) -> "Outage":
        """Record an answer from Redis. A replica that has shared owes quiet to those that have not detected it yet."""
        if self.failing_since_s is None:
            return self
        owed_until_s = now_s + self._rest_s if self.shares else self.owed_until_s
        return msgspec.structs.replace(self, failing_since_s=None, shares=False, owed_until_s=owed_until_s)

    def kept_quiet(self, *, asked_s: float) -> "Outage":
        """Record that the side in use has answered a quiet tick that was sent at `asked_s`."""
        if self.owed_until_s is None or asked_s < self.owed_until_s:
            return self
        return msgspec.structs.replace(self, owed_until_s=None)

    def may_begin_alone(self, *, now_s: float) -> bool:
        """Return whether Redis was seen to be away recently enough: a process resumed from a stop must check first."""
        return self.shares and now_s - self.asked_s <= self.notice_s

    @property
    def _rest_s(self) -> float:
        """Return how long quiet ticks continue: a single one is quiet for `quiet_s`."""
        return max(self.notice_s - self.quiet_s, 0.0) + self.ahead_s
