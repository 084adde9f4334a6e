"""When the certificates in a PEM file end."""

import re
import ssl

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def ends_of(pem: str) -> list[float]:
    """Return when each certificate ends, in seconds since the epoch, in the file's order. Raise ValueError."""
    return [_end_of(ssl.PEM_cert_to_DER_cert(block)) for block in _PEM.findall(pem)]


def _end_of(der: bytes) -> float:
    from cryptography import x509  # noqa: PLC0415 - a tenth of a second, where certificates are configured

    try:
        return x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp()
    except ValueError as exc:
        raise ValueError("an unreadable certificate") from exc
