"""The upstream's error codes as data: the kind of each, and advice for operators.

The kinds come from the vendor's list of common codes (60000 to 79999), its page for this call (90104, 90105) and
accompanying notes. The codes that `get_sched_task` returns for an unknown id are a setting,
`upstream.unknown_task_codes`, because the vendor documents none. `refusals.py` maps kinds to errors, and `verdicts.py`
decides what follows a failed fetch.
"""

from enum import StrEnum

import msgspec


class CodeKind(StrEnum):
    """What an error code requires. A small closed set, suitable for a metric's label."""

    THROTTLED = "throttled"
    TRANSIENT = "transient"
    ANSWER_NOT_BUILT = "answer_not_built"
    SIGNATURE_EXPIRED = "signature_expired"
    TOO_MANY_BAD_SIGNATURES = "too_many_bad_signatures"
    CREDENTIALS = "credentials"
    WRONG_REGION = "wrong_region"
    ACCOUNT = "account"
    OUR_FAULT = "our_fault"
    CALLER_FAULT = "caller_fault"
    UNKNOWN = "unknown"


class KnownCodes(msgspec.Struct, frozen=True, kw_only=True):
    """Error codes of one kind that require the same advice."""

    codes: tuple[int, ...]
    kind: CodeKind
    advice: str


_ACCOUNT = (
    "The upstream refuses this app or its account: a permission, the package or the source address. The text beside "
    "the code says which; see the app in the vendor's console."
)

TABLE = (
    KnownCodes(
        codes=(60007, 60011, 60018, 60019),
        kind=CodeKind.THROTTLED,
        advice="The upstream says that it is called too often. If this lasts, something else calls with the same "
        "SDKAppID, or budget.calls is higher than what the upstream allows.",
    ),
    KnownCodes(
        codes=(60008, 60014, 70169, 70202, 70500, 90105, 91000),
        kind=CodeKind.TRANSIENT,
        advice="A timeout or an internal error within the upstream. It should pass; if it lasts, ask the vendor.",
    ),
    KnownCodes(
        codes=(60013,),
        kind=CodeKind.ANSWER_NOT_BUILT,
        advice="The upstream could not build its answer. If this lasts for one query, ask the vendor; a smaller "
        "cache.block_size may help.",
    ),
    KnownCodes(
        codes=(70001, 70052),
        kind=CodeKind.SIGNATURE_EXPIRED,
        advice="The upstream holds the signature for expired or no longer valid. If a new one doesn't help, see "
        "whether this machine's clock is right and whether the app's secret was replaced in the vendor's console.",
    ),
    KnownCodes(
        codes=(70050,),
        kind=CodeKind.TOO_MANY_BAD_SIGNATURES,
        advice="The upstream has seen too many bad signatures and refuses all calls for a minute or longer. Correct "
        "the secret first; more calls only prolong this.",
    ),
    KnownCodes(
        codes=(70002, 70003, 70005, 70009, 70014),
        kind=CodeKind.CREDENTIALS,
        advice="The upstream does not accept our signature: the secret is most likely wrong, cut off, or that of "
        "another app. Compare it with the key and the SDKAppID in the vendor's console.",
    ),
    KnownCodes(
        codes=(70013,),
        kind=CodeKind.CREDENTIALS,
        advice="The signature was made for another identifier than the one in the call. Check the app's admin.",
    ),
    KnownCodes(
        codes=(70016, 70020),
        kind=CodeKind.WRONG_REGION,
        advice="The upstream does not find the app or its key here: mostly the region is wrong. Compare the app's "
        "region and SDKAppID with the vendor's console.",
    ),
    KnownCodes(codes=(60004, 60005, 60006, 60012, 60015, 60016, 60017), kind=CodeKind.ACCOUNT, advice=_ACCOUNT),
    KnownCodes(codes=(70051, 70107, 70114), kind=CodeKind.ACCOUNT, advice=_ACCOUNT),
    KnownCodes(
        codes=(60010, 70403),
        kind=CodeKind.ACCOUNT,
        advice="The account may not make this call: it has to be an App admin. Check the app's admin, and make it an "
        "App admin in the vendor's console.",
    ),
    KnownCodes(
        codes=(60020,),
        kind=CodeKind.ACCOUNT,
        advice="The app's package does not include this call, or has ended. See the app's package in the vendor's "
        "console.",
    ),
    KnownCodes(
        codes=(60021,),
        kind=CodeKind.ACCOUNT,
        advice="The upstream does not allow calls from this source address. Add the address under which this "
        "machine leaves your network to the app's allowed addresses in the vendor's console.",
    ),
    KnownCodes(
        codes=(60002, 60003, 60009, 70402),
        kind=CodeKind.OUR_FAULT,
        advice="The upstream can't read our request: a fault in Taskgate, or the upstream has changed. Try the other "
        "spelling of upstream.order_by, see whether something between here and the upstream changes requests, and "
        "report it.",
    ),
    KnownCodes(
        codes=(90104,),
        kind=CodeKind.CALLER_FAULT,
        advice="The upstream refused the query's parameters, for example a range of time longer than it allows. If "
        "it refuses every query, check the app's sdkappid, try the other spelling of upstream.order_by, or set "
        "query.range_max_days.",
    ),
)

UNKNOWN_ADVICE = "An error code that Taskgate does not know. Look it up in the vendor's list of error codes."

_KNOWN = {code: entry for entry in TABLE for code in entry.codes}


def kind_of(code: int) -> CodeKind:
    """Return the kind of an error code other than 0."""
    entry = _KNOWN.get(code)
    return entry.kind if entry else CodeKind.UNKNOWN


def advice_for(code: int) -> str:
    """Return what is wrong and how to fix it, for operators."""
    entry = _KNOWN.get(code)
    return entry.advice if entry else UNKNOWN_ADVICE
