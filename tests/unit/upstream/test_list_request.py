"""Requests for a list: the sample of the upstream's page, and path and query of the call."""

import json
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from service.model.calls import CallKind
from service.model.queries import At, Query, Range, Sort
from service.upstream.apps import UpstreamApp
from service.upstream.list_call import OrderBy, list_body
from service.upstream.wire import request_target

APP = UpstreamApp(name="shop", sdkappid=88888888, admin="admin", hosts=("https://upstream.invalid",))


MAY = Range(since_s=1746057600, until_s=1748736000)


def query(*, sort: Sort = Sort.SCHEDULED_DESC, keyword: str | None = None) -> Query:
    return Query(app="shop", since=At(epoch_s=MAY.since_s), until=At(epoch_s=MAY.until_s), sort=sort, keyword=keyword)


def body_of(query: Query, order_by: OrderBy = "lower") -> dict[str, object]:
    decoded = json.loads(list_body(APP, query, MAY, offset=0, want=20, order_by=order_by))
    assert isinstance(decoded, dict)
    return decoded


def test_a_request_matches_the_documented_sample() -> None:
    """A body has the fields and the spelling of the upstream's page, and no others."""
    assert body_of(query(keyword="Push Title")) == {
        "Sdkappid": 88888888,
        "Offset": 0,
        "Want": 20,
        "OrderBy": "schedat",
        "Asc": False,
        "BeginTime": "2025-05-01 00:00:00",
        "EndTime": "2025-06-01 00:00:00",
        "Keyword": "Push Title",
    }


@pytest.mark.parametrize("keyword", [None, ""])
def test_without_a_keyword_the_field_is_not_sent(keyword: str | None) -> None:
    """Without a keyword, the field is not sent."""
    assert "Keyword" not in body_of(query(keyword=keyword))


@pytest.mark.parametrize(
    ("sort", "order_by", "expected"),
    [
        (Sort.SCHEDULED, "lower", ("schedat", True)),
        (Sort.SCHEDULED_DESC, "lower", ("schedat", False)),
        (Sort.CREATED, "lower", ("createat", True)),
        (Sort.CREATED_DESC, "lower", ("createat", False)),
        (Sort.SCHEDULED, "camel", ("schedAt", True)),
        (Sort.CREATED_DESC, "camel", ("createAt", False)),
    ],
)
def test_a_sort_becomes_field_and_direction(sort: Sort, order_by: OrderBy, expected: tuple[str, bool]) -> None:
    """A sort becomes field and direction, the field in the spelling that is set."""
    body = body_of(query(sort=sort), order_by)
    assert (body["OrderBy"], body["Asc"]) == expected


@pytest.mark.parametrize(("epoch_s", "expected"), [(0, "1970-01-01 00:00:00"), (253402300799, "9999-12-31 23:59:59")])
def test_years_have_four_digits(epoch_s: int, expected: str) -> None:
    """The first and the last possible moment are written with a four-digit year."""
    body = json.loads(
        list_body(APP, query(), Range(since_s=epoch_s, until_s=epoch_s), offset=0, want=1, order_by="lower")
    )
    assert (body["BeginTime"], body["EndTime"]) == (expected, expected)


@pytest.mark.parametrize(
    ("kind", "path"),
    [(CallKind.LIST, "/v4/timpush/list_sched_task"), (CallKind.GET, "/v4/timpush/get_sched_task")],
)
def test_the_query_string_has_the_documented_parameters(kind: CallKind, path: str) -> None:
    """The query string has the five documented parameters; the signature is not escaped."""
    target = request_target(APP, kind, signature="eJ*a-b_c", random=4294967295)
    assert urlsplit(target).path == path
    assert "usersig=eJ*a-b_c&" in target
    assert parse_qs(urlsplit(target).query) == {
        "usersig": ["eJ*a-b_c"],
        "identifier": ["admin"],
        "sdkappid": ["88888888"],
        "random": ["4294967295"],
        "contenttype": ["json"],
    }


def test_an_admin_name_cannot_add_parameters() -> None:
    """An admin's name can't add parameters."""
    app = msgspec.structs.replace(APP, admin="a&random=1#é")
    target = request_target(app, CallKind.LIST, signature="s", random=7)
    assert parse_qs(urlsplit(target).query)["identifier"] == ["a&random=1#é"]
    assert parse_qs(urlsplit(target).query)["random"] == ["7"]
