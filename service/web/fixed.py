"""Files that stay the same for as long as the process lives: pages for people, and what they load."""

import hashlib
from typing import Any

from litestar import Request

from service.web.answers import Answer, Reply
from service.web.context import request_context
from service.web.headers.conditional import holds

SCRIPT = b"text/javascript; charset=utf-8"
STYLE = b"text/css; charset=utf-8"
ICON = b"image/svg+xml"


def fixed_file(media_type: bytes, body: bytes, *, policy: bytes, keep_s: int) -> Answer:
    """A file as it goes out, under a Content-Security-Policy; browsers ask for it again after `keep_s`."""
    return Answer(
        status=200,
        headers=(
            (b"etag", b'"%s"' % hashlib.blake2b(body, digest_size=16).hexdigest().encode()),
            (b"cache-control", b"public, max-age=%d" % keep_s),
            (b"content-security-policy", policy),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"vary", b"Accept-Encoding"),
            (b"content-type", media_type),
        ),
        body=body,
    )


def reply_fixed(request: Request[Any, Any, Any], answer: Answer) -> Reply:
    """The file, or 304 to who holds it."""
    if holds(request_context(request).fields.get(b"if-none-match"), answer.headers[0][1]):
        return Reply(Answer(status=304, headers=answer.headers[:-1], body=b""))
    return Reply(answer)
