"""Records of completed requests, for tests of observers."""

from typing import Any

import msgspec

from service.observe.request import RequestLabels, RequestRecord, request_labels_of

_LABELS = request_labels_of("GET", "/tasks", 200, "a", "shop", "hit")
_SEEN = RequestRecord(
    request_id="a.b_c-9",
    labels=_LABELS,
    client="192.0.2.1",
    trace_id=None,
    waited_s=0.0,
    upstream_s=0.0,
    calls=0,
    duration_s=0.000_024_9,
    ended_at_s=1_750_000_000.000_25,
)


def observed(**changes: Any) -> RequestRecord:
    """Return the record of a hit on a page, with these fields or labels changed."""
    labels = {name: changes.pop(name) for name in RequestLabels.__struct_fields__ if name in changes}
    named = request_labels_of(*msgspec.structs.astuple(msgspec.structs.replace(_LABELS, **labels)))
    return msgspec.structs.replace(_SEEN, labels=named, **changes)
