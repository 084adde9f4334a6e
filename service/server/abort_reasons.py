"""Why the server closes connections before their end: a closed set, for metrics."""

from typing import Literal, get_args

AbortReason = Literal["room", "full", "head", "idle", "reader", "linger", "unsent", "length", "cut_off", "shutdown"]
"""
- `room`: the longest idle one, for a new connection; `full`: the new one itself, with 503
- `head`: a head that did not come in time; `idle`: no further request
- `reader`: took nothing of its answer; `linger`: went on sending after an answer that closes the connection
- `unsent`: held unread bytes for longest, when all connections together held too many
- `length`, `cut_off`: the answer broke off
- `shutdown`: the end of the process
"""
ABORT_REASONS: tuple[AbortReason, ...] = get_args(AbortReason)
