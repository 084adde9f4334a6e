"""Entity tags, and conditional requests: `If-None-Match` (RFC 9110, 8.8 and 13.1.2)."""

import hashlib
import re

# Entity tags (RFC 9110, section 8.8.3). The quantifier is possessive, so that malformed fields fail in linear time.
_TAG = rb'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*+)"'
_TAGS = re.compile(rb"[ \t,]*+" + _TAG + rb"[ \t]*+(?:,[ \t,]*+(?:" + _TAG + rb"[ \t]*+|$))*+")
_EACH = re.compile(_TAG)


def matches_etag(if_none_match: bytes | None, etag: bytes) -> bool:
    """Return whether `If-None-Match` contains the entity tag, by weak comparison. A malformed field matches nothing."""
    if if_none_match is None:
        return False
    field = if_none_match.strip(b" \t")
    if field in (b"*", etag):
        return True
    if not _TAGS.fullmatch(field):
        return False
    opaque = etag.removeprefix(b"W/")[1:-1]
    return any(tag == opaque for tag in _EACH.findall(field))


def weak_tag(*parts: bytes) -> bytes:
    """Return a weak entity tag over the parts, joined: the same on all replicas, and in every content coding."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return b'W/"%s"' % digest.hexdigest()[:32].encode()
