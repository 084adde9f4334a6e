"""The expiry of keys and certificates is exported from the current settings and files."""

import datetime
import math
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.settings import CallerSettings, KeySettings, RedisSettings, ServiceAccountSettings, UpstreamSettings
from service.telemetry.expiry import ExpiryCollector, ends_of
from tests.settings import settings_of

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a name")])


def certificate(ends: str) -> str:
    """A certificate that expires at this time, in PEM."""
    until = datetime.datetime.fromisoformat(ends)
    builder = x509.CertificateBuilder(issuer_name=NAME, subject_name=NAME, public_key=KEY.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(datetime.datetime(1999, 1, 1, tzinfo=datetime.UTC)).not_valid_after(until)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def collected(collector: ExpiryCollector) -> dict[tuple[str, ...], float]:
    """The samples by their labels."""
    return {tuple(s.labels.values()): s.value for family in collector.collect() for s in family.samples}


@pytest.mark.parametrize("day", ["2026-12-01", "2049-12-31", "2061-02-03"])
def test_the_expiry_of_a_certificate_is_read(day: str) -> None:
    """Both forms of a time in X.509 are read; text around the certificates is passed over."""
    ends = f"{day}T12:30:45+00:00"
    at_s = datetime.datetime.fromisoformat(ends).timestamp()
    text = f"Bag Attributes\n{certificate(ends)}\nsomething\n{certificate('2030-01-01T00:00:00+00:00')}"
    assert ends_of(text) == [at_s, 1_893_456_000.0]


@pytest.mark.parametrize("bytes_left", [1, 5, 40, 100])
def test_a_broken_certificate_does_not_crash(bytes_left: int) -> None:
    """Truncated input and other data raise ValueError and nothing else."""
    der = ssl.PEM_cert_to_DER_cert(certificate("2030-01-01T00:00:00+00:00"))[:bytes_left]
    with pytest.raises(ValueError, match="certificate"):
        ends_of(ssl.DER_cert_to_PEM_cert(der))


def test_a_certificate_that_is_not_base64_raises_value_error() -> None:
    """It raises ValueError and nothing else."""
    with pytest.raises(ValueError, match=r"padding|base64"):
        ends_of("-----BEGIN CERTIFICATE-----\n%%%A\n-----END CERTIFICATE-----")


def test_the_expiry_of_keys_is_exported() -> None:
    """Each key has a series labelled with the first digits of its digest; without an expiry its value is infinity."""
    keys = ("a" * 64, KeySettings(sha256="b" * 64, until="2027-01-01"), KeySettings(sha256="c" * 64))
    callers = {"reports": CallerSettings(keys=keys, apps=("shop",)), "other": CallerSettings(apps=("shop",))}
    assert collected(ExpiryCollector(lambda: settings_of(callers=callers))) == {
        ("reports", "a" * 8): math.inf,
        ("reports", "b" * 8): 1_798_761_600.0,
        ("reports", "c" * 8): math.inf,
    }


def test_the_expiry_of_files_is_exported_and_updated(tmp_path: Path) -> None:
    """In a client's chain the first certificate counts, among CAs the one that expires last; a broken file is
    omitted."""
    soon, late = certificate("2026-01-01T00:00:00+00:00"), certificate("2027-01-01T00:00:00+00:00")
    cert, authority, broken = (tmp_path / name for name in ("cert.pem", "ca.pem", "broken.pem"))
    cert.write_text(soon + late)
    authority.write_text(soon + late)
    broken.write_text("none")
    redis = RedisSettings(url="rediss://127.0.0.1", cert_file=str(cert), ca_file=str(authority))
    tokens = ServiceAccountSettings(issuer="i", audience="a", ca_file=str(tmp_path / "missing.pem"))
    settings = settings_of(redis=redis, upstream=UpstreamSettings(ca_file=str(broken)), service_accounts=tokens)
    collector = ExpiryCollector(lambda: settings)
    assert collected(collector) == {("redis.ca_file",): 1_798_761_600.0, ("redis.cert_file",): 1_767_225_600.0}
    cert.write_text(late)
    broken.write_text(late)
    assert collected(collector) == {
        ("redis.ca_file",): 1_798_761_600.0,
        ("redis.cert_file",): 1_798_761_600.0,
        ("upstream.ca_file",): 1_798_761_600.0,
    }
