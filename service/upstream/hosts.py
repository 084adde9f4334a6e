"""Hosts that recently could not be reached. Pure but for its memory; times are seconds of any steady clock."""

AVOID_S = 30.0


class FailedHosts:
    """Remembers failed hosts for half a minute; as many entries as there are hosts."""

    def __init__(self) -> None:
        self._avoided_until_s: dict[str, float] = {}

    def failed(self, host: str, *, now_s: float) -> None:
        """Record that a host could not be reached: prefer the others for a while."""
        self._avoided_until_s[host] = now_s + AVOID_S

    def ordered(self, hosts: tuple[str, ...], *, now_s: float) -> tuple[str, ...]:
        """Return all hosts in their own order, but those that failed recently last."""
        return tuple(sorted(hosts, key=lambda host: self._avoided_until_s.get(host, now_s) > now_s))
