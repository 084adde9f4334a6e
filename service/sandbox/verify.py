"""Verify a UserSig (version 2) independently of the signer: no shared code, so each can reveal the other's faults.

Format and vectors: the vendor's published signers. Which code answers which fault follows the texts of the vendor's
list of codes, where it says so; whether a `TLS.time` in the future is refused is not known, and it isn't here.
"""

import base64
import binascii
import hashlib
import hmac
import zlib

import msgspec

from service.sandbox.refusals import SandboxCode, SandboxRefusal

VERSION = "2.0"
LONGEST_TEXT = 4096  # bytes, of the decompressed signature


class VerifiedSignature(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded signature. `time` is in seconds since the epoch, `expire` in seconds from there."""

    ver: str = msgspec.field(name="TLS.ver")
    identifier: str = msgspec.field(name="TLS.identifier")
    sdkappid: int = msgspec.field(name="TLS.sdkappid")
    expire: int = msgspec.field(name="TLS.expire")
    time: int = msgspec.field(name="TLS.time")
    sig: str = msgspec.field(name="TLS.sig")


def verify(usersig: str, *, identifier: str, sdkappid: int, key: str, now_s: float) -> SandboxRefusal | None:
    """Return what is wrong with a signature for this identifier and app, or None if it is valid at `now_s`."""
    if not usersig:
        return SandboxRefusal(code=SandboxCode.SIGNATURE_EMPTY, text="usersig is empty")
    signature = decode_signature(usersig)
    if isinstance(signature, SandboxRefusal):
        return signature
    if signature.identifier != identifier:
        return SandboxRefusal(
            code=SandboxCode.SIGNATURE_OTHER_IDENTIFIER, text="identifier does not match the one in usersig"
        )
    if signature.sdkappid != sdkappid:
        return SandboxRefusal(code=SandboxCode.SIGNATURE_OTHER_APP, text="sdkappid does not match the one in usersig")
    if not hmac.compare_digest(expected_sig(signature, key).encode(), signature.sig.encode()):
        return SandboxRefusal(code=SandboxCode.SIGNATURE_WRONG_KEY, text="usersig was not made with this app's key")
    if now_s >= signature.time + signature.expire:
        return SandboxRefusal(code=SandboxCode.SIGNATURE_EXPIRED, text="usersig has expired")
    return None


def decode_signature(usersig: str) -> VerifiedSignature | SandboxRefusal:
    """Undo the base64 of the vendor's own alphabet and the compression, and read the fields."""
    if set(usersig) & set("+/="):
        return SandboxRefusal(
            code=SandboxCode.SIGNATURE_UNREADABLE, text="usersig uses plain base64 where * - _ belong"
        )
    try:
        packed = base64.b64decode(usersig.translate(str.maketrans("*-_", "+/=")), validate=True)
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(packed, LONGEST_TEXT)
    except (binascii.Error, ValueError, zlib.error):
        return SandboxRefusal(code=SandboxCode.SIGNATURE_UNREADABLE, text="usersig is not base64 over zlib")
    if not unpacker.eof or unpacker.unused_data:
        return SandboxRefusal(
            code=SandboxCode.SIGNATURE_UNREADABLE, text="usersig is cut off, too long, or followed by more"
        )
    try:
        signature = msgspec.json.decode(text, type=VerifiedSignature)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return SandboxRefusal(
            code=SandboxCode.SIGNATURE_MALFORMED, text="usersig lacks a field, or one has the wrong type"
        )
    if signature.ver != VERSION:
        return SandboxRefusal(code=SandboxCode.SIGNATURE_MALFORMED, text=f"usersig is not of version {VERSION}")
    return signature


def expected_sig(signature: VerifiedSignature, key: str) -> str:
    """Return the `TLS.sig` that these fields have under this key."""
    lines = (
        f"TLS.identifier:{signature.identifier}",
        f"TLS.sdkappid:{signature.sdkappid}",
        f"TLS.time:{signature.time}",
        f"TLS.expire:{signature.expire}",
    )
    signed = "".join(line + "\n" for line in lines).encode()
    return base64.b64encode(hmac.digest(key.encode(), signed, hashlib.sha256)).decode("ascii")
