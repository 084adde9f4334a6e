"""The middleware: request ids, observations, bounds, credentials, and routes that need none."""

import asyncio
import re
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from service.model.errors import UpstreamTimeout
from service.model.origin import FetchCost
from service.model.pages import Source
from tests.http.site import AUTH, KEY, MANY_AUTH, Web
from tests.servers import until

OPEN = [
    "/", "/livez", "/readyz", "/version", "/problems", "/problems/{name}", "/openapi.json", "/docs", "/docs/{name}",
    "/favicon.ico", "/page/{name}",
]  # fmt: skip


@pytest.mark.parametrize("path", ["/tasks", "/tasks?limit=x", "/apps"])
@pytest.mark.parametrize(
    "credential",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        KEY,
        f"Basic {KEY}",
        f"Bearer {KEY}x",
        f"Bearer {KEY} x",
        f"Bearer {KEY}, Bearer {KEY}",
        "Bearer " + "x" * 9000,
    ],
)
async def test_unknown_callers_get_401(web: Web, path: str, credential: str | None) -> None:
    """Without a known key every request gets 401, which says whether a credential was sent, but not what is wrong
    with it."""
    headers = {} if credential is None else {"Authorization": credential}
    answer = await web.client.get(path, headers=headers)
    assert answer.status_code == 401
    error = ', error="invalid_token"' if credential else ""
    assert answer.headers["www-authenticate"] == f'Bearer realm="taskgate"{error}'
    problem = answer.json()
    assert problem["type"] == "/problems/unauthenticated"
    assert ("carries no credential" in problem["detail"]) == (not credential)
    assert web.observed[0].labels.status == 401
    assert web.observed[0].labels.caller is None


async def test_two_credentials_are_rejected(web: Web) -> None:
    """A request with two Authorization fields is unauthenticated."""
    headers = [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")]
    assert (await web.client.get("/apps", headers=headers)).status_code == 401


async def test_only_named_routes_are_open(web: Web) -> None:
    """Every route but those listed here rejects a caller without a key."""
    templates = {route.path for route in web.app.app.routes}
    closed = set()
    for template in templates:
        path = template.replace("{name:str}", "failed" if "problems" in template else "start.js")
        path = path.replace("{id:str}", "1")
        method = "DELETE" if template == "/cache" else "GET"
        if (await web.client.request(method, path)).status_code == 401:
            closed.add(template)
    assert closed == {"/tasks", "/tasks/{id:str}", "/apps", "/budget", "/usage", "/cache"}
    assert {each.replace(":str", "") for each in templates - closed} == set(OPEN)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_scheme_is_case_insensitive(web: Web, scheme: str) -> None:
    """`Bearer` is accepted in any case."""
    assert (await web.client.get("/apps", headers={"Authorization": f"{scheme}  {KEY}"})).status_code == 200


async def test_apps_are_those_of_the_caller(web: Web) -> None:
    """A caller sees only its own apps, whichever of its keys it uses."""
    shop = {"name": "shop", "region": "singapore"}
    assert (await web.get("/apps")).json() == {"apps": [shop]}
    for key in ("two-key", "old-key"):
        answer = await web.client.get("/apps", headers={"Authorization": f"Bearer {key}"})
        assert answer.json() == {"apps": [{"name": "news", "region": "singapore"}, shop]}


async def test_state_routes_reveal_no_app(web: Web) -> None:
    """Liveness never fails, readiness says what the gateway knows and names no app, and neither is cached."""
    assert (await web.client.get("/livez")).json() == {"live": True}
    ready = await web.client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "redis": "ok", "apps_ok": 1, "apps_total": 2})
    web.gateway.ready = False
    unready = await web.client.get("/readyz")
    assert (unready.status_code, unready.json()["ready"]) == (503, False)
    assert unready.headers["cache-control"] == "no-store"
    version = (await web.client.get("/version")).json()
    assert version["name"] == "taskgate"


@pytest.mark.parametrize("own", ["a", "A.b_c-9", "x" * 128])
async def test_a_valid_request_id_is_kept(web: Web, own: str) -> None:
    """A caller's id is returned unchanged, even if nothing is found."""
    for path in ("/tasks", "/nowhere", "/livez"):
        assert (await web.get(path, headers={"X-Request-Id": own})).headers["x-request-id"] == own


@pytest.mark.parametrize("own", ["", " ", "x" * 129, "a b", "a,b", "a/b", "\xe4", "a\tb"])
async def test_an_invalid_request_id_is_replaced(web: Web, own: str) -> None:
    """An unusable id is replaced by a generated one."""
    answer = await web.client.get("/livez", headers=[(b"x-request-id", own.encode("latin-1"))])
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_each_request_is_observed_once(web: Web) -> None:
    """Each request is observed once, by route and not by path, with its outcome."""
    web.gateway.changes = {"source": Source.FETCHED}
    web.gateway.cost = FetchCost(waited_s=0.5, upstream_s=0.25, calls=1)
    await web.get("/tasks?q=private")
    await web.client.get("/nowhere/private")
    await web.client.post("/tasks")
    await web.client.request("BREW", "/tasks")
    await web.client.get("/problems/failed")
    await web.client.head("/livez")
    seen = [msgspec.structs.astuple(each.labels) for each in web.observed]
    assert seen == [
        ("GET", "/tasks", 200, "single", "shop", "fetched"),
        ("GET", "unrouted", 404, None, None, "not-found"),
        ("POST", "unrouted", 405, None, None, "method-not-allowed"),
        ("other", "unrouted", 405, None, None, "method-not-allowed"),
        ("GET", "/problems/{name}", 200, None, None, None),
        ("HEAD", "/livez", 200, None, None, None),
    ]
    assert (web.observed[0].waited_s, web.observed[0].upstream_s) == (0.5, 0.25)


async def test_a_failed_request_has_its_cost(web: Web) -> None:
    """What a request has waited and how many calls it has cost is recorded however it ends."""
    web.gateway.cost = FetchCost(waited_s=1.5, upstream_s=0.5, calls=2)
    for web.gateway.error in (UpstreamTimeout("late", app="shop"), RuntimeError("a fault of ours")):
        await web.get()
    seen = [(each.labels.status, each.waited_s, each.upstream_s, each.calls) for each in web.observed]
    assert seen == [(504, 1.5, 0.5, 2), (500, 1.5, 0.5, 2)]


async def test_a_request_that_is_cut_off_is_recorded_once(web: Web) -> None:
    """A request that the server cancels gets 503, and its record has that status, its id, caller and route."""
    web.gateway.go = asyncio.Event()
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"gateway"), (b"authorization", f"Bearer {KEY}".encode()), (b"x-request-id", b"mine")]
    scope = {"type": "http", "method": "GET", "path": "/tasks", "query_string": b"", "headers": headers, "client": None}
    task = asyncio.create_task(web.app(scope, asyncio.Event().wait, send))
    await until(lambda: web.gateway.waiting == 1)
    task.cancel()
    await asyncio.wait({task})
    assert (task.cancelled(), sent[0]["status"]) == (True, 503)
    assert [(each.request_id, *msgspec.structs.astuple(each.labels)) for each in web.observed] == [
        ("mine", "GET", "/tasks", 503, "single", "shop", "503")
    ]


async def test_a_record_has_address_and_trace(web: Web) -> None:
    """The peer's address and the trace id of a valid `traceparent` are recorded, also of unroutable requests."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    for traceparent in (f"00-{trace}-b7ad6b7169203331-01", f"00-{'0' * 32}-b7ad6b7169203331-01", "rubbish"):
        await web.get("/nowhere", headers={"traceparent": traceparent, "X-Forwarded-For": "192.0.2.9"})
    web.app.refuse(400, ("192.0.2.1", 4711))
    seen = [(each.client, each.trace_id) for each in web.observed]
    assert seen == [("127.0.0.1", trace), ("127.0.0.1", None), ("127.0.0.1", None), ("192.0.2.1", None)]


async def test_log_holds_no_secrets(web: Web) -> None:
    """Neither key nor query string nor path appears in the log, whatever the outcome of the request."""
    with capture_logs() as logs:
        await web.get("/tasks?q=private")
        await web.get("/tasks?private=1")
        await web.client.get("/tasks?q=private", headers=MANY_AUTH | {"X-Request-Id": "private id"})
        web.gateway.error = RuntimeError()
        await web.get("/tasks?q=private")
        await web.get("/private")
    assert [entry["status"] for entry in logs if entry["event"] == "request"] == [200, 400, 400, 500, 404]
    parsed = repr([{key: value for key, value in entry.items() if key != "exc_info"} for entry in logs])
    assert "private" not in parsed
    assert KEY not in parsed


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/tasks?q=" + "x" * 8192, {}, 414),
        ("/" + "x" * 8192, {}, 414),
        ("/tasks", {"Cookie": "x" * 16_384}, 431),
        ("/tasks", {"Content-Length": "1"}, 413),
        ("/tasks", {"Transfer-Encoding": "chunked"}, 413),
        ("/tasks", {"Content-Length": "0"}, 200),
    ],
)
async def test_oversized_requests_are_rejected(web: Web, path: str, headers: dict[str, str], status: int) -> None:
    """Oversized requests are rejected with a problem before they are processed."""
    answer = await web.client.get(path, headers=AUTH | headers)
    assert answer.status_code == status
    assert "x-request-id" in answer.headers
    if status != 200:
        assert answer.json()["type"].startswith("/problems/")
        assert web.gateway.requests == []


async def test_errors_outside_litestar_are_a_500(web: Web) -> None:
    """A fault outside of Litestar still gives a 500 with an id, and is logged."""

    async def broken(*_: object) -> None:
        raise RuntimeError("secret")

    web.app.app = broken
    with capture_logs() as logs:
        answer = await web.get()
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/failed")
    assert [entry["event"] for entry in logs] == ["web.failed", "request"]
