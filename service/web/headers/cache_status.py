"""`Cache-Status` (RFC 9211): where a response came from, and why.

| response                                                       | parameters of the field                         |
|----------------------------------------------------------------|-------------------------------------------------|
| stored and fresh                                               | `hit; ttl=11`                                   |
| stored and stale, renewed in the background                    | `hit; ttl=-3; detail=renewing`                  |
| stored, because the turn would come too late                   | `hit; ttl=-3; detail=wait`                      |
| stored, because no call could be made                          | `hit; ttl=-3; detail=error`                     |
| stored and stale, because the call failed                      | `fwd=stale; ttl=-3; detail=error`               |
| stored and fresh; the request required a call, which failed    | `fwd=request; ttl=11; detail=error`             |
| fetched, nothing was stored                                    | `fwd=miss; ttl=15; stored`                      |
| fetched, the stored response was stale                         | `fwd=stale; ttl=15; stored`                     |
| fetched, the request did not accept the fresh stored response  | `fwd=request; ttl=15; stored`                   |
| from a fetch shared with another request                       | any of the last three, with `collapsed`         |

A caller that requested a forced fetch without the right to it gets `detail=force-denied`; if there is another detail,
both are in one string.
"""

from service.model.freshness import CacheDirectives
from service.model.pages import Obtained, Source

FORCE_DENIED = "force-denied"


def cache_status(obtained: Obtained, directives: CacheDirectives, *, ttl_s: int) -> bytes:
    """Return the field's value. `ttl_s` is the remaining freshness lifetime in seconds, negative once stale."""
    how = "hit" if obtained.forward is None else f"fwd={obtained.forward.value}"
    parts = ["taskgate", how, f"ttl={ttl_s}"]
    if obtained.source in (Source.FETCHED, Source.JOINED):
        parts.append("stored")
    if obtained.source is Source.JOINED:
        parts.append("collapsed")
    details = []
    if obtained.stale_reason is not None:
        details.append(obtained.stale_reason.value)
    if directives.is_force_denied:
        details.append(FORCE_DENIED)
    if details:
        parts.append(f"detail={details[0]}" if len(details) == 1 else f'detail="{", ".join(details)}"')
    return "; ".join(parts).encode()
