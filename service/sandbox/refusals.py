"""The sandbox upstream's refusals: their codes and their shape."""

from enum import IntEnum

import msgspec

from service.sandbox.http1 import HttpResponse


class SandboxCode(IntEnum):
    """The error codes that the sandbox returns by itself; any other can be injected as a fault."""

    BAD_URL = 60002
    BAD_BODY = 60003
    NO_IDENTIFIER = 60004
    NO_SUCH_API = 60009
    NOT_ADMIN = 60010
    NO_SDKAPPID = 60012
    TOO_OFTEN = 60018
    SIGNATURE_EXPIRED = 70001
    SIGNATURE_EMPTY = 70002
    SIGNATURE_UNREADABLE = 70003
    SIGNATURE_MALFORMED = 70005
    SIGNATURE_WRONG_KEY = 70009
    SIGNATURE_OTHER_IDENTIFIER = 70013
    SIGNATURE_OTHER_APP = 70014
    NO_SUCH_APP = 70020
    BAD_PARAMETERS = 90104
    NO_SUCH_TASK = 90106


class SandboxRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """A refused call: one code, and a text."""

    code: int
    text: str


def refusal_response(refusal: SandboxRefusal) -> HttpResponse:
    """Return a refusal as the upstream writes it, with HTTP status 200."""
    body = {"ActionStatus": "FAIL", "ErrorInfo": refusal.text, "ErrorCode": int(refusal.code)}
    return HttpResponse(body=msgspec.json.encode(body))
