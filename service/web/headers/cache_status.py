"""`Cache-Status` (RFC 9211): where an answer came from, and why.

| the answer                                                     | the field's parameters                          |
|----------------------------------------------------------------|-------------------------------------------------|
| stored and fresh                                               | `hit; ttl=11`                                   |
| stored and stale, renewed in the background                    | `hit; ttl=-3; detail=renewing`                  |
| stored, since the turn would come too late                     | `hit; ttl=-3; detail=wait`                      |
| stored, since no call could be made                            | `hit; ttl=-3; detail=error`                     |
| stored and stale, since the call failed                        | `fwd=stale; ttl=-3; detail=error`               |
| stored and fresh, but the request wanted a call, which failed  | `fwd=request; ttl=11; detail=error`             |
| fetched, nothing was stored                                    | `fwd=miss; ttl=15; stored`                      |
| fetched, what was stored was stale                             | `fwd=stale; ttl=15; stored`                     |
| fetched, the request did not take what was stored and fresh    | `fwd=request; ttl=15; stored`                   |
| from a fetch that was made for another request, too            | any of the last three, with `collapsed`         |

A caller that may not force a fetch, but asked for one, gets `detail=force-denied`, beside another detail as a string.
"""

from service.model.freshness import CacheDirectives
from service.model.pages import Page, Source

FORCE_DENIED = "force-denied"


def cache_status(page: Page, directives: CacheDirectives, *, ttl_s: int) -> bytes:
    """Return the field's value; `ttl_s` is the rest of the freshness lifetime, negative once stale."""
    how = "hit" if page.forward is None else f"fwd={page.forward.value}"
    parts = ["taskgate", how, f"ttl={ttl_s}"]
    if page.source in (Source.FETCHED, Source.JOINED):
        parts.append("stored")
    if page.source is Source.JOINED:
        parts.append("collapsed")
    details = []
    if page.stale_reason is not None:
        details.append(page.stale_reason.value)
    if directives.is_force_denied:
        details.append(FORCE_DENIED)
    if details:
        parts.append(f"detail={details[0]}" if len(details) == 1 else f'detail="{", ".join(details)}"')
    return "; ".join(parts).encode()
