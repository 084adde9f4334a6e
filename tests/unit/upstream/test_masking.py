"""A signature that the upstream echoes is masked in any form."""

import base64
import json
import zlib

import pytest

from service.upstream.masking import MASK, masked
from service.upstream.usersig import sign
from service.upstream.wire import bounded

SIGNATURE = sign(sdkappid=88888888, admin="admin", key=b"k" * 64, issued_at_s=1_700_000_000, valid_s=86_400)
STANDARD = SIGNATURE.replace("*", "+").replace("-", "/").replace("_", "=")
FIELDS = json.loads(zlib.decompress(base64.b64decode(STANDARD)))
MAC = FIELDS["TLS.sig"]
OLDER = sign(sdkappid=88888888, admin="admin", key=b"k" * 64, issued_at_s=1_600_000_000, valid_s=86_400)

ECHOES = {
    "as it is": SIGNATURE,
    "standard base64": STANDARD,
    "base64 for URLs": STANDARD.replace("+", "-").replace("/", "_"),
    "percent-encoded": STANDARD.replace("+", "%2B").replace("/", "%2F").replace("=", "%3d"),
    "JSON-escaped": STANDARD.replace("/", "\\/"),
    "decoded": json.dumps(FIELDS),
    "its HMAC": f"expected another than {MAC}",
    "its HMAC in hex": base64.b64decode(MAC).hex(),
    "in lines": "\n".join(SIGNATURE[at : at + 16] for at in range(0, len(SIGNATURE), 16)),
    "in pieces": " ".join(SIGNATURE[at : at + 5] for at in range(0, len(SIGNATURE), 5)),
    "cut off": SIGNATURE[:30],
    "its end": SIGNATURE[-30:],
    "an older one": OLDER,
    "an older one, standard base64": OLDER.replace("*", "+").replace("-", "/").replace("_", "="),
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
def test_no_part_of_a_signature_is_left(echo: str) -> None:
    """No eight consecutive characters of the signature are left, in any encoding, and the surrounding text stays."""
    text = masked(f"error in usersig={echo}&x=1, see the docs", signature=SIGNATURE)
    assert text.startswith("error in ")
    assert text.endswith("see the docs")
    assert MASK in text
    left = "".join(char for char in text if char.isalnum())
    for secret in (SIGNATURE, MAC, base64.b64decode(MAC).hex(), OLDER):
        letters = "".join(char for char in secret if char.isalnum())
        assert not any(letters[at : at + 8] in left for at in range(len(letters) - 7))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "short",
        "called too often, 5 per second",
        "推送 é",
        "sdkappid 88888888 not found for admin",
        "a" * 300,
    ],
)
def test_text_without_a_signature_is_unchanged(text: str) -> None:
    """Text that is not a signature is unchanged."""
    assert masked(text, signature=SIGNATURE) == text


def test_a_huge_text_costs_little() -> None:
    """A text of megabytes is cut before it is searched."""
    assert len(bounded(SIGNATURE * 50_000, secret=SIGNATURE)) <= 200
