"""`DELETE /cache` over HTTP, with a fake gateway."""

import pytest

from service.model.errors import StoreUnavailable, UnknownApp
from tests.http.site import AUTH, OPERATOR_AUTH, Web


async def test_an_operator_drops_the_blocks_of_any_app(web: Web) -> None:
    """An operator drops an app's blocks, also of one that it may not read, and gets their number."""
    answer = await web.client.delete("/cache?app=shop", headers=OPERATOR_AUTH)
    assert (answer.status_code, answer.json()) == (200, {"app": "shop", "dropped": 12})
    assert answer.headers["cache-control"] == "no-store"
    assert web.gateway.dropped == ["shop"]
    assert (web.observed[0].labels.route, web.observed[0].labels.app) == ("/cache", "shop")


async def test_only_operators_may_drop(web: Web) -> None:
    """Other callers get a 403, and nothing is dropped."""
    answer = await web.client.delete("/cache?app=shop", headers=AUTH)
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/not-allowed")
    assert (await web.client.delete("/cache?app=shop")).status_code == 401
    assert web.gateway.dropped == []


@pytest.mark.parametrize("query", ["", "?app=", "?app=a&app=b", "?app=shop&block=1", "?app=%ff"])
async def test_invalid_parameters_are_rejected(web: Web, query: str) -> None:
    """The app must be named exactly once, and other parameters are rejected."""
    answer = await web.client.delete(f"/cache{query}", headers=OPERATOR_AUTH)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/bad-request")
    assert answer.json()["errors"]
    assert web.gateway.dropped == []


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [(UnknownApp(), 404, "unknown-app"), (StoreUnavailable("unreachable"), 503, "store-unavailable")],
)
async def test_an_unknown_app_or_an_unavailable_redis_is_a_problem(
    web: Web, error: Exception, status: int, kind: str
) -> None:
    """A nonexistent app gets 404, and an unavailable Redis 503."""
    web.gateway.error = error
    answer = await web.client.delete("/cache?app=shop", headers=OPERATOR_AUTH)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{kind}")


async def test_a_body_is_rejected(web: Web) -> None:
    """A body is rejected, as with GET."""
    answer = await web.client.request("DELETE", "/cache?app=shop", headers=OPERATOR_AUTH, content=b"x")
    assert answer.status_code == 413
