"""The sandbox's signature verifier, against the published vectors and every fault."""

import base64
import json
import zlib
from collections.abc import Callable

import pytest

from service.sandbox.refusals import SandboxRefusal
from service.sandbox.verify import LONGEST_TEXT, VerifiedSignature, decode_signature, expected_sig, verify

KEY_A = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e"
KEY_B = "0123456789abcdef" * 4
PUBLISHED = (
    "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItkpqTmlWSmZUIkKjIT87NK82CSxSnZiQUFmSlAKUMTAyiAyqVWFGQWpYJkTE1NjRDiJZm5YFEzNPXF"
    "mekgGwyjTAPy0l2y3BNL01KDMwPynUorUjwizV29jb1CUhyzfAMsjYNNvMvCjH1tlWoBGhAzGw__"
)
NOW_S = 1_700_000_000


@pytest.mark.parametrize(
    ("key", "sdkappid", "signed", "sig"),
    [
        (KEY_A, 1400000000, ("xiaojun", 15552000, 1600000000), "1Z5PngDjGaufeSiPoBuxdHY7EK3JTdAjMP93S4KvV3M="),
        (KEY_A, 1400000000, ("administrator", 86400, 1700000000), "yLAe+w7WUeUuqbV9h/TX78u21oTGi+i9Zp1u3PpnY60="),
        (KEY_B, 88888888, ("admin", 604800, 1735689600), "Yh9i4gA+O50TbQs2NDu6fOD6LJNNL7PH3ZSq/pF7LFQ="),
    ],
)
def test_the_signature_of_the_vendors_signers_is_expected(
    key: str, sdkappid: int, signed: tuple[str, int, int], sig: str
) -> None:
    """The verifier expects the very TLS.sig that the vendor's signers make."""
    identifier, expire, time = signed
    signature = VerifiedSignature(ver="2.0", identifier=identifier, sdkappid=sdkappid, expire=expire, time=time, sig="")
    assert expected_sig(signature, key) == sig


def test_published_signature_holds_to_its_last_second() -> None:
    """The published signature is accepted until time + expire, and refused with 70001 from then on."""
    last_s = 1600000000 + 15552000 - 1
    wanted = {"identifier": "xiaojun", "sdkappid": 1400000000, "key": KEY_A}
    assert verify(PUBLISHED, **wanted, now_s=last_s) is None
    expired = verify(PUBLISHED, **wanted, now_s=last_s + 1)
    assert expired is not None
    assert expired.code == 70001


@pytest.mark.parametrize(
    ("asked", "signed", "code"),
    [
        ({}, {}, None),
        ({}, {"time_s": NOW_S + 3600}, None),
        ({}, {"changed": {"TLS.userbuf": "eA=="}}, None),
        ({}, {"time_s": NOW_S - 86_400}, 70001),
        ({}, {"key": KEY_B}, 70009),
        ({}, {"changed": {"TLS.expire": 10**9}}, 70009),
        ({}, {"changed": {"TLS.time": NOW_S - 1}}, 70009),
        ({}, {"changed": {"TLS.sig": "ä"}}, 70009),
        ({"identifier": "someone"}, {}, 70013),
        ({"sdkappid": 1400000003}, {}, 70014),
        ({}, {"changed": {"TLS.ver": "1.0"}}, 70005),
        ({}, {"changed": {"TLS.ver": 2.0}}, 70005),
        ({}, {"changed": {"TLS.sdkappid": "1400000000"}}, 70005),
        ({}, {"changed": {"TLS.sig": None}}, 70005),
    ],
)
def test_each_fault_has_its_code(
    usersig: Callable[..., str], asked: dict[str, object], signed: dict[str, object], code: int | None
) -> None:
    """A signature with one fault is refused with that fault's code, and one without any is accepted."""
    good = {"identifier": "admin", "sdkappid": 1400000000, "key": KEY_A}
    refusal = verify(usersig(**(good | {"time_s": NOW_S - 60} | signed)), **(good | asked), now_s=NOW_S)
    assert (refusal.code if refusal else None) == code


def _packed(raw: bytes) -> str:
    return base64.b64encode(raw).decode().replace("+", "*").replace("/", "-").replace("=", "_")


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ("", 70002),
        ("garbage", 70003),
        ("ü" * 8, 70003),
        ("AAAA", 70003),
        (PUBLISHED[:-40], 70003),
        (PUBLISHED[:-2] + "==", 70003),
        (_packed(zlib.compress(b"{}") + b"more"), 70003),
        (_packed(zlib.compress(b" " * (LONGEST_TEXT + 1))), 70003),
        (_packed(zlib.compress(b"x" * 10_000_000)), 70003),
        (_packed(zlib.compress(b"\xff\xfe")), 70005),
        (_packed(zlib.compress(b"[]")), 70005),
        (_packed(zlib.compress(json.dumps({"TLS.ver": "2.0"}).encode())), 70005),
    ],
)
def test_broken_signatures_are_refused_with_a_code(broken: str, code: int) -> None:
    """A signature that can't be read is refused with a code, however it is broken, and never raises."""
    refusal = verify(broken, identifier="admin", sdkappid=1, key=KEY_A, now_s=NOW_S)
    assert refusal is not None
    assert refusal.code == code


def test_base64url_is_not_the_vendors_alphabet() -> None:
    """A signature written in RFC 4648 base64url doesn't decode to the same fields: the vendor's `-` stands for `/`."""
    fields = {"TLS.ver": "2.0", "TLS.identifier": "a>?>?" * 9, "TLS.sdkappid": 1}
    plain = base64.b64encode(zlib.compress(json.dumps(fields).encode(), 0)).decode()
    assert "+" in plain or "/" in plain
    assert isinstance(decode_signature(plain.replace("+", "-").replace("/", "_")), SandboxRefusal)
