"""UserSig against vectors from the vendor's own signers, made at a frozen clock."""

import base64
import json
import string
import zlib

import pytest

from service.upstream.usersig import sign

KEY = b"5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e"
VENDORS_OWN = (
    "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItkpqTmlWSmZUIkKjIT87NK82CSxSnZiQUFmSlAKUMTAyiAyqVWFGQWpYJkTE1NjRDiJZm5YFEzNPXFmekgGwyj"
    "TAPy0l2y3BNL01KDMwPynUorUjwizV29jb1CUhyzfAMsjYNNvMvCjH1tlWoBGhAzGw__"
)

VECTORS = [
    ((1400000000, KEY, "xiaojun", 15552000, 1600000000), "1Z5PngDjGaufeSiPoBuxdHY7EK3JTdAjMP93S4KvV3M="),
    ((1400000000, KEY, "administrator", 86400, 1700000000), "yLAe+w7WUeUuqbV9h/TX78u21oTGi+i9Zp1u3PpnY60="),
    ((88888888, b"0123456789abcdef" * 4, "admin", 604800, 1735689600), "Yh9i4gA+O50TbQs2NDu6fOD6LJNNL7PH3ZSq/pF7LFQ="),
]


def fields_of(signature: str) -> dict[str, object]:
    """Decode a signature independently of the code under test."""
    standard = signature.replace("*", "+").replace("-", "/").replace("_", "=")
    decoded = json.loads(zlib.decompress(base64.b64decode(standard, validate=True)))
    assert isinstance(decoded, dict)
    return decoded


@pytest.mark.parametrize(("given", "mac"), VECTORS)
def test_signatures_match_those_of_the_vendors_signers(given: tuple[int, bytes, str, int, int], mac: str) -> None:
    """A signature's fields are those that the vendor's signers make of the same input."""
    sdkappid, key, admin, valid_s, issued_at_s = given
    signature = sign(sdkappid=sdkappid, admin=admin, key=key, issued_at_s=issued_at_s, valid_s=valid_s)
    assert fields_of(signature) == {
        "TLS.ver": "2.0",
        "TLS.identifier": admin,
        "TLS.sdkappid": sdkappid,
        "TLS.expire": valid_s,
        "TLS.time": issued_at_s,
        "TLS.sig": mac,
    }


def test_a_signature_of_the_vendor_decodes_to_our_fields() -> None:
    """A whole signature made by the vendor's signer decodes to the same fields as ours."""
    ours = sign(sdkappid=1400000000, admin="xiaojun", key=KEY, issued_at_s=1600000000, valid_s=15552000)
    assert fields_of(VENDORS_OWN) == fields_of(ours)


def test_a_signature_needs_no_escaping() -> None:
    """No signature holds a character that a query string would have to escape."""
    allowed = set(string.ascii_letters + string.digits + "*-_")
    for second in range(200):
        assert set(sign(sdkappid=1, admin="a", key=KEY, issued_at_s=second, valid_s=300)) <= allowed
