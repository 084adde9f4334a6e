"""The response of `GET /tasks/{id}`: the task as it is in lists."""

import hashlib

from service.model.freshness import CacheDirectives
from service.model.origin import FetchCost
from service.model.pages import FoundTask
from service.web.answers import JSON, Answer
from service.web.headers.conditional import holds
from service.web.headers.encoding import Encodings
from service.web.headers.obtained import obtained_fields


def task_answer(
    found: FoundTask,
    *,
    directives: CacheDirectives,
    cost: FetchCost,
    wait_applied_s: int | None,
    if_none_match: bytes | None,
    accept_encoding: bytes | None,
    encodings: Encodings,
    now_s: float,
) -> Answer:
    """Return the response as of `now_s` in a coding that the caller accepts, or 304 if the caller has it already."""
    etag = etag_of_task(found)
    fields = obtained_fields(
        found,
        app=found.app,
        etag=etag,
        directives=directives,
        cost=cost,
        wait_applied_s=wait_applied_s,
        now_s=now_s,
    )
    if holds(if_none_match, etag):
        return Answer(status=304, headers=fields, body=b"")
    headers = (*fields, (b"content-type", JSON))
    coding = encodings.choose(accept_encoding, body_bytes=len(found.body))
    if coding is None:
        return Answer(status=200, headers=headers, body=found.body)
    body = encodings.encode(found.body, key=etag, coding=coding)
    return Answer(status=200, headers=(*headers, (b"content-encoding", coding.encode())), body=body)


def etag_of_task(found: FoundTask) -> bytes:
    """Return a weak entity tag (RFC 9110, 8.8.1) over the task: the same on all replicas and in every coding."""
    return b'W/"%s"' % hashlib.blake2b(found.body, digest_size=16).hexdigest().encode()
