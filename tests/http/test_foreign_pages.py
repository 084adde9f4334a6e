"""Requests that a foreign web page makes a browser send."""

import httpx
import pytest

from service.web.middleware import RequestMiddleware
from tests.http.site import OPERATOR_AUTH, Web


def open_web(web: Web) -> httpx.AsyncClient:
    """The same application without authentication."""
    app = RequestMiddleware(web.app, observers=(), is_open=True)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost:8000")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "taskgate.localhost", "127.0.0.1", "127.1.2.3:80", "[::1]:8000"]
)
async def test_names_of_this_machine_are_served(web: Web, host: str) -> None:
    """Without authentication, each name of this machine is served."""
    assert (await open_web(web).get("/livez", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1", "[fe80::1]", "127.0.0.1.nip.io"]
)
async def test_other_names_are_rejected(web: Web, host: str) -> None:
    """A page of evil.example whose name was made to resolve to this service reads and drops nothing, by any method."""
    for method, path in (("GET", "/tasks"), ("DELETE", "/cache?app=shop"), ("HEAD", "/livez")):
        refused = await open_web(web).request(method, path, headers={"Host": host, **OPERATOR_AUTH})
        assert refused.status_code == 421
        assert (await web.client.get("/livez", headers={"Host": host})).status_code == 200
    assert web.gateway.requests == []
    assert web.gateway.dropped == []


@pytest.mark.parametrize(
    ("fields", "is_open", "get", "delete"),
    [
        ({}, False, 200, 200),
        ({"Sec-Fetch-Site": "cross-site"}, False, 200, 403),
        ({"Origin": "https://evil.example"}, False, 200, 403),
        ({"Origin": "null"}, False, 200, 403),
        ({"Origin": "http://gateway"}, False, 200, 200),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "same-site"}, False, 200, 403),
        ({"Origin": "https://behind.a.proxy", "Sec-Fetch-Site": "same-origin"}, False, 200, 200),
        ({}, True, 200, 200),
        ({"Sec-Fetch-Site": "none"}, True, 200, 200),
        ({"Sec-Fetch-Site": "cross-site"}, True, 403, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, True, 200, 403),
        ({"Origin": "http://localhost:8000"}, True, 200, 200),
        ({"Origin": "http://localhost:3000"}, True, 403, 403),
    ],
)
async def test_foreign_pages_may_only_link_here(
    web: Web, fields: dict[str, str], is_open: bool, get: int, delete: int
) -> None:
    """A foreign page can't change state; without authentication, it can only link here."""
    client = open_web(web) if is_open else web.client
    headers = {**OPERATOR_AUTH, **fields}
    assert (await client.get("/livez", headers=headers)).status_code == get
    assert (await client.delete("/cache?app=shop", headers=headers)).status_code == delete
    assert len(web.gateway.dropped) == (delete == 200)


@pytest.mark.parametrize("path", ["/livez", "/tasks", "/nowhere", "/problems", "/openapi.json", "/docs", "/"])
async def test_no_answer_is_sniffed_and_no_page_framed(web: Web, path: str) -> None:
    """Every answer says nosniff once, and pages also that nobody may frame them."""
    answer = await web.get(path, headers={"Accept": "text/html, application/json"})
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    if answer.headers["content-type"].startswith("text/html"):
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
