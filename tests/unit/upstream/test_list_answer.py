"""Answers to a call for a list: the sample of the upstream's page, odd records, and answers that can't be read."""

import json
from typing import Any

import msgspec
import pytest

from service.model.tasks import Listing
from service.upstream.list_call import read_listing
from service.upstream.wire import MalformedAnswer, UpstreamRefusal, bounded


def answer() -> dict[str, Any]:
    """The sample of the upstream's page."""
    return {
        "ActionStatus": "OK",
        "ErrorInfo": "",
        "ErrorCode": 0,
        "Total": 2,
        "Tasks": [
            {
                "TaskID": 1234567890,
                "Sdkappid": 88888888,
                "CreateAt": "2025-05-20 08:30:00",
                "Type": "All",
                "SchedAt": "2025-06-01 10:00:00",
                "Content": {"From_Account": "administrator", "MsgRandom": 985410822},
                "Title": "Push Title 1",
                "Desc": "Push Description 1",
                "Status": "pending",
                "DispatchSuccess": 0,
                "DispatchErr": "",
                "PushTaskID": "",
            },
            {
                "TaskID": 1234567891,
                "Sdkappid": 88888888,
                "CreateAt": "2025-05-21 09:00:00",
                "Type": "Tag",
                "SchedAt": "2025-06-02 14:00:00",
                "Content": {"From_Account": 7, "Condition": {"TagsAnd": ["Stock A"]}},
                "Title": "Push Title 2",
                "Desc": "Push Description 2",
                "Status": "dispatched",
                "DispatchSuccess": 1,
                "DispatchErr": "",
                "PushTaskID": "69cf7344_537529d8",
            },
        ],
    }


def read_bytes(body: bytes, *, offset: int = 0, want: int = 20) -> Listing:
    listing = read_listing(body, sdkappid=88888888, offset=offset, want=want)
    assert isinstance(listing, Listing)
    return listing


def read(decoded: object, *, offset: int = 0, want: int = 20) -> Listing:
    return read_bytes(json.dumps(decoded).encode(), offset=offset, want=want)


def changed(**fields: object) -> dict[str, Any]:
    """The sample with its second task changed; a field that is `...` is absent."""
    decoded = answer()
    decoded["Tasks"][1] = {name: value for name, value in {**decoded["Tasks"][1], **fields}.items() if value is not ...}
    return decoded


def test_the_documented_answer_is_read() -> None:
    """The page's sample becomes tasks as callers see them."""
    listing = read(answer())
    assert listing.total == 2
    assert json.loads(msgspec.json.encode(listing.tasks)) == [
        {
            "id": 1234567890,
            "type": "all",
            "status": "pending",
            "title": "Push Title 1",
            "description": "Push Description 1",
            "created_at": "2025-05-20T08:30:00Z",
            "scheduled_at": "2025-06-01T10:00:00Z",
            "dispatched": False,
            "dispatch_error": None,
            "push_task_id": None,
            "content": {"From_Account": "administrator", "MsgRandom": 985410822},
        },
        {
            "id": 1234567891,
            "type": "tag",
            "status": "dispatched",
            "title": "Push Title 2",
            "description": "Push Description 2",
            "created_at": "2025-05-21T09:00:00Z",
            "scheduled_at": "2025-06-02T14:00:00Z",
            "dispatched": True,
            "dispatch_error": None,
            "push_task_id": "69cf7344_537529d8",
            "content": {"From_Account": 7, "Condition": {"TagsAnd": ["Stock A"]}},
        },
    ]


@pytest.mark.parametrize(
    ("field", "sent", "attribute", "expected"),
    [
        ("Type", "User", "type", "user"),
        ("Type", "Segment", "type", "Segment"),
        ("Status", "cancelled", "status", "cancelled"),
        ("DispatchErr", "no device", "dispatch_error", "no device"),
        ("DispatchErr", None, "dispatch_error", None),
        ("PushTaskID", None, "push_task_id", None),
        ("CreateAt", "", "created_at", None),
        ("SchedAt", "", "scheduled_at", None),
        ("SchedAt", "2024-02-29 23:59:59", "scheduled_at", "2024-02-29T23:59:59Z"),
        ("TaskID", 2**63 - 1, "id", 2**63 - 1),
        ("Surprise", {"new": 1}, "id", 1234567890),
    ],
)
def test_unknown_values_and_fields_are_accepted(field: str, sent: object, attribute: str, expected: object) -> None:
    """Unknown types and statuses pass through, empty texts become null, unknown fields are ignored."""
    decoded = answer()
    decoded["Tasks"][0][field] = sent
    assert getattr(read(decoded).tasks[0], attribute) == expected


def test_content_is_untouched() -> None:
    """A task's content is carried through byte for byte: numbers, order and blanks of any size."""
    content = '{"z": 1.10, "a":  [1e400, 123456789012345678901234567890], "a": "\\u00e9é"}'
    text = json.dumps(answer()).replace('{"From_Account": 7, "Condition": {"TagsAnd": ["Stock A"]}}', content)
    listing = read_bytes(text.encode())
    assert bytes(listing.tasks[1].content) == content.encode()


def test_an_empty_list_is_a_listing_without_tasks() -> None:
    """An empty list, or null in its place, is a listing without tasks; the total may still be larger."""
    for tasks in ([], None):
        listing = read({**answer(), "Tasks": tasks})
        assert (listing.total, listing.tasks) == (2, ())


def test_an_empty_list_may_lack_tasks() -> None:
    """With a total of 0, `Tasks` may be absent."""
    decoded = {**answer(), "Total": 0}
    del decoded["Tasks"]
    assert read(decoded) == Listing(total=0, tasks=())


@pytest.mark.parametrize("field", ["ErrorCode", "Total", "Tasks"])
def test_a_missing_field_is_reported_by_name(field: str) -> None:
    """A missing field of the answer is reported by name."""
    decoded = answer()
    del decoded[field]
    with pytest.raises(MalformedAnswer, match=field):
        read(decoded)


@pytest.mark.parametrize(
    ("sent", "attribute", "expected", "odd"),
    [
        ({"Title": None}, "title", None, None),
        ({"Title": ...}, "title", None, None),
        ({"Desc": ...}, "description", None, None),
        ({"Content": ...}, "content", msgspec.Raw(b"null"), None),
        ({"Content": None}, "content", msgspec.Raw(b"null"), None),
        ({"DispatchErr": ...}, "dispatch_error", None, None),
        ({"PushTaskID": ...}, "push_task_id", None, None),
        ({"CreateAt": ...}, "created_at", None, None),
        ({"SchedAt": ...}, "scheduled_at", None, None),
        ({"SchedAt": None}, "scheduled_at", None, None),
        ({"Type": None}, "type", None, None),
        ({"Status": ...}, "status", None, None),
        ({"Sdkappid": ...}, "id", 1234567891, None),
        ({"Sdkappid": "88888888"}, "id", 1234567891, None),
        ({"DispatchSuccess": True}, "dispatched", True, None),
        ({"DispatchSuccess": False}, "dispatched", False, None),
        ({"DispatchSuccess": "1"}, "dispatched", True, None),
        ({"DispatchSuccess": 2}, "dispatched", False, None),
        ({"DispatchSuccess": ...}, "dispatched", None, None),
        ({"DispatchSuccess": "yes"}, "dispatched", None, "value"),
        ({"TaskID": "1234567891"}, "id", 1234567891, None),
        ({"TaskID": "-7"}, "id", -7, None),
        ({"Title": 7}, "title", None, "value"),
        ({"Status": ["pending"]}, "status", None, "value"),
        ({"CreateAt": "2025-05-20T08:30:00Z"}, "created_at", "2025-05-20T08:30:00Z", None),
        ({"CreateAt": "2025-05-20t08:30:00z"}, "created_at", "2025-05-20T08:30:00Z", None),
        ({"CreateAt": "2025-05-20T08:30:00"}, "created_at", "2025-05-20T08:30:00Z", None),
        ({"CreateAt": "2025-05-20T08:30:00+08:00"}, "created_at", "2025-05-20T00:30:00Z", None),
        ({"CreateAt": "2025-05-20 23:30:00.250-0100"}, "created_at", "2025-05-21T00:30:00.250Z", None),
        ({"CreateAt": "2025-05-20 08:30:00.123456"}, "created_at", "2025-05-20T08:30:00.123456Z", None),
        ({"CreateAt": "0001-01-01 00:00:00"}, "created_at", "0001-01-01T00:00:00Z", None),
        ({"CreateAt": "0001-01-01T00:00:00+01:00"}, "created_at", None, "time"),
        ({"CreateAt": "2025-02-30 08:30:00"}, "created_at", None, "time"),
        ({"CreateAt": "2025-05-20 24:00:00"}, "created_at", None, "time"),
        ({"CreateAt": "2025-05-20T08:30:00+24:00"}, "created_at", None, "time"),
        ({"SchedAt": "2025-05-20 08:30:60"}, "scheduled_at", None, "time"),
        ({"SchedAt": "0000-00-00 00:00:00"}, "scheduled_at", None, "time"),
        ({"SchedAt": "2025-5-20 08:30:00"}, "scheduled_at", None, "time"),
        ({"SchedAt": "٢٠٢٥-05-20 08:30:00"}, "scheduled_at", None, "time"),
        ({"SchedAt": 1747729800}, "scheduled_at", None, "time"),
    ],
)
def test_an_unreadable_record_leaves_others_alone(
    sent: dict[str, object], attribute: str, expected: object, odd: str | None
) -> None:
    """What can be read without guessing is kept, the rest is null and counted; the other record is not affected."""
    listing = read(changed(**sent))
    assert getattr(listing.tasks[1], attribute) == expected
    assert listing.odd == (() if odd is None else ((odd, 1),))
    assert listing.tasks[0] == read(answer()).tasks[0]
    assert (listing.total, len(listing.tasks), listing.left_out) == (2, 2, 0)


@pytest.mark.parametrize("task_id", [..., None, 1.5, "", "x7", "1.0", True, 2**63, -(2**63) - 1, [1]])
def test_a_record_without_an_id_is_left_out(task_id: object) -> None:
    """A record without an id is left out and counted, because the total includes it."""
    listing = read(changed(TaskID=task_id))
    assert [task.id for task in listing.tasks] == [1234567890]
    assert (listing.total, listing.left_out, listing.odd) == (2, 1, (("id", 1),))


@pytest.mark.parametrize("record", [None, 7, "task", [1]])
def test_a_record_that_is_not_an_object_is_left_out(record: object) -> None:
    """A record that is not an object is left out, whatever it is."""
    decoded = answer()
    decoded["Tasks"][0] = record
    listing = read(decoded)
    assert ([task.id for task in listing.tasks], listing.left_out) == ([1234567891], 1)


@pytest.mark.parametrize("wrong", [rb"\ud800", rb"\uDFFF", rb"\udc00\ud800", b"\xff", b"\xed\xa0\x80"])
@pytest.mark.parametrize("place", [b"Push Title 2", b"Stock A"])
def test_text_that_is_not_unicode_is_replaced(place: bytes, wrong: bytes) -> None:
    """Half of a surrogate pair is replaced, in texts and in raw content, and the rest is kept."""
    body = json.dumps(answer()).encode().replace(place, rb"\\ud83d \ud83d\ude00 " + wrong)
    listing = read_bytes(body)
    read_back = msgspec.json.decode(msgspec.json.encode(listing.tasks[1]))
    text = read_back["title"] if place.startswith(b"Push") else read_back["content"]["Condition"]["TagsAnd"][0]
    assert text.rstrip("\ufffd") == "\\ud83d 😀 "
    assert dict(listing.odd)["text"] >= 1
    assert listing.tasks[0] == read(answer()).tasks[0]


@pytest.mark.parametrize("sdkappid", [1, "88888887"])
def test_an_answer_with_a_task_of_another_app_is_rejected(sdkappid: object) -> None:
    """If a task belongs to another app, nothing of the answer is served."""
    with pytest.raises(MalformedAnswer, match="another app"):
        read(changed(Sdkappid=sdkappid))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not JSON"),
        (b"<html>502</html>", "not JSON"),
        (b"[]", "another type"),
        (b"null", "another type"),
        (b"{}", "ErrorCode"),
        (json.dumps(answer()).encode()[:-20], "not JSON"),
        (json.dumps(answer()).encode() + b"x", "not JSON"),
        (json.dumps(answer()).encode("utf-16"), "not JSON"),
        (json.dumps({**answer(), "Total": 2**63}).encode(), "Total"),
        (json.dumps({**answer(), "Total": 2**64}).encode(), "Total"),
        (json.dumps({**answer(), "Total": 10**30}).encode(), "Total"),
        (json.dumps({**answer(), "Tasks": {}}).encode(), "Tasks"),
        (b'{"ErrorCode": 0, "deep": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested"),
        (b'{"ErrorCode": 0, "ActionStatus": "FAIL"}', "ActionStatus"),
        (b'{"ErrorCode": 0, "Total": -1, "Tasks": []}', "Total"),
        (b'{"ErrorCode": "0", "Total": 1, "Tasks": []}', "ErrorCode"),
    ],
)
def test_each_deviation_has_its_own_text(body: bytes, text: str) -> None:
    """Each deviation from the documented answer has its own text."""
    with pytest.raises(MalformedAnswer, match=text):
        read_bytes(body)


def test_surplus_tasks_are_dropped() -> None:
    """Tasks beyond those requested are dropped: they belong to the next block."""
    listing = read(answer(), want=1)
    assert ([task.id for task in listing.tasks], listing.total) == ([1234567890], 2)
    assert listing.odd == (("surplus", 1),)


def test_a_total_below_the_number_of_tasks_is_raised() -> None:
    """A total below the number of tasks returned is raised to it, and counted."""
    listing = read({**answer(), "Total": 1}, offset=100)
    assert (listing.total, len(listing.tasks), listing.odd) == (102, 2, (("total", 1),))
    assert read({**answer(), "Total": 0, "Tasks": []}, offset=100) == Listing(total=0, tasks=())


@pytest.mark.parametrize("info", ['"no such key"', '""', "null"])
def test_an_error_code_is_a_refusal(info: str) -> None:
    """An error code is a refusal, whatever else the answer holds or lacks."""
    body = f'{{"ActionStatus": "FAIL", "ErrorCode": 70009, "ErrorInfo": {info}}}'
    answered = read_listing(body.encode(), sdkappid=88888888, offset=0, want=20)
    assert answered == UpstreamRefusal(code=70009, text=json.loads(info) or "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, é and 推送", "plain, é and 推送"),
        ("a\nb\x00\x1b[31m\u2028\u202e", r"a\nb\x00\x1b[31m\u2028\u202e"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
        ("\n" * 200, r"\n" * 99 + "\\…"),
        ("sig eJ*secret in it, eJ*secret", "sig [signature] in it, [signature]"),
        ("x" * 195 + "eJ*secret", "x" * 195 + "[sig…"),
        ("an older one: eJ" + "x*-_%2A" * 20 + "&a=b", "an older one: [signature]&a=b"),
    ],
)
def test_the_upstreams_text_is_bounded(text: str, expected: str) -> None:
    """The upstream's text is bounded, its control characters are escaped, and the signature is taken out of it."""
    assert bounded(text, secret="eJ*secret") == expected
