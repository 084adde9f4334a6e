"""When the certificates in a PEM file end. X.509 (RFC 5280, 4.1) is read only as far as that needs."""

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_UTC_TIME, _VERSION = 0x17, 0xA0


def ends_of(pem: str) -> list[float]:
    """Return when each certificate ends, in seconds since the epoch, in the file's order. Raise ValueError."""
    return [_end_of(ssl.PEM_cert_to_DER_cert(block)) for block in _PEM.findall(pem)]


def _end_of(der: bytes) -> float:
    """Return the certificate's `notAfter`."""
    ((_, certificate),) = _elements(der)
    (_, signed), *_ = _elements(certificate)
    fields = [content for tag, content in _elements(signed) if tag != _VERSION]
    try:
        _, _, _, validity, *_ = fields  # serial number, signature algorithm, issuer, validity
        _, (tag, text) = _elements(validity)
        digits = text.decode("ascii")
        if tag == _UTC_TIME:  # two digits of the year: from 1950 to 2049
            digits = ("19" if digits >= "50" else "20") + digits
        return datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError as exc:
        raise ValueError("a certificate without a readable end") from exc


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and content of each element (X.690, 8.1). Raise ValueError if they are cut off."""
    start = 0
    while start < len(der):
        if start + 2 > len(der):
            raise ValueError("a certificate that is cut off")
        tag, length, start = der[start], der[start + 1], start + 2
        if length & 0x80:
            size = length & 0x7F
            length, start = int.from_bytes(der[start : start + size]), start + size
        if start + length > len(der):
            raise ValueError("a certificate that is cut off")
        yield tag, der[start : start + length]
        start += length
