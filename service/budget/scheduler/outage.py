"""What one replica makes of Redis's silence under `on_redis_down: share`. Pure; times are seconds, monotonic."""

import msgspec


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """Whether Redis answers, whether this replica `shares`: lives on its own part of the calls; what quiet it owes.

    All replicas notice that Redis has gone, or is back, within `notice_s` of each other, for each asks it all the
    time. One quiet tick takes all slots for `quiet_s`; where that is shorter than `notice_s`, quiet is kept for longer:
    all ticks are quiet up to the first after `owed_until_s`. So nobody uses the one budget while another still uses
    the other, be it on the way out or back.
    """

    grace_s: float
    notice_s: float
    quiet_s: float
    failing_since_s: float | None = None
    shares: bool = False
    asked_s: float = 0.0
    owed_until_s: float | None = None

    def failed(self, *, asked_s: float, now_s: float) -> "Outage":
        """Redis was asked at `asked_s` and could not be had. Sharing begins when that has gone on for the grace."""
        since_s = now_s if self.failing_since_s is None else self.failing_since_s
        failed = msgspec.structs.replace(self, failing_since_s=since_s, asked_s=asked_s)
        if self.shares or now_s - since_s < self.grace_s:
            return failed
        return msgspec.structs.replace(failed, shares=True, owed_until_s=now_s + self._rest_s)

    def answered(self, *, now_s: float) -> "Outage":
        """Redis has answered. Whoever has shared owes quiet to those who have not noticed yet."""
        if self.failing_since_s is None:
            return self
        owed_until_s = now_s + self._rest_s if self.shares else self.owed_until_s
        return msgspec.structs.replace(self, failing_since_s=None, shares=False, owed_until_s=owed_until_s)

    def kept_quiet(self, *, asked_s: float) -> "Outage":
        """A quiet tick that was sent at `asked_s` has been answered by the side in use."""
        if self.owed_until_s is None or asked_s < self.owed_until_s:
            return self
        return msgspec.structs.replace(self, owed_until_s=None)

    def may_begin_alone(self, *, now_s: float) -> bool:
        """Whether Redis was found away lately enough: a process that was stopped for a while has to look first."""
        return self.shares and now_s - self.asked_s <= self.notice_s

    @property
    def _rest_s(self) -> float:
        """What the noticing takes beyond one quiet tick."""
        return max(self.notice_s - self.quiet_s, 0.0)
