"""UserSig, version 2: the signature that names the admin to the upstream.

Written after the vendor's published signers, which agree on the signed text and on the fields; key order, white space
and compression level differ between them, so signatures are compared by their decoded fields.
"""

import base64
import hashlib
import hmac
import zlib

import msgspec


class _Fields(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a signature, under the vendor's names."""

    ver: str = msgspec.field(name="TLS.ver", default="2.0")
    identifier: str = msgspec.field(name="TLS.identifier")
    sdkappid: int = msgspec.field(name="TLS.sdkappid")
    expire: int = msgspec.field(name="TLS.expire")
    time: int = msgspec.field(name="TLS.time")
    sig: str = msgspec.field(name="TLS.sig")


# The vendor's own base64 alphabet for URLs, which is not that of RFC 4648 section 5.
_ALPHABET = bytes.maketrans(b"+/=", b"*-_")


def sign(*, sdkappid: int, admin: str, key: bytes, issued_at_s: int, valid_s: int) -> str:
    """Sign for `admin` of an app, valid for `valid_s` seconds from `issued_at_s` (since the epoch).

    `key` is the secret's text, which looks like hex but is not decoded.
    """
    text = f"TLS.identifier:{admin}\nTLS.sdkappid:{sdkappid}\nTLS.time:{issued_at_s}\nTLS.expire:{valid_s}\n"
    mac = hmac.new(key, text.encode(), hashlib.sha256).digest()
    fields = _Fields(
        identifier=admin,
        sdkappid=sdkappid,
        expire=valid_s,
        time=issued_at_s,
        sig=base64.b64encode(mac).decode(),
    )
    packed = zlib.compress(msgspec.json.encode(fields))
    return base64.b64encode(packed).translate(_ALPHABET).decode()
