"""`GET /usage` over HTTP: its parameters, its members, and who may see whose usage."""

import pytest

from service.model.budgets import Counts, UsageByCaller, UsageInPeriod
from service.settings import CallerSettings
from tests.http.fake_gateway import NOW_S
from tests.http.site import MANY_AUTH, Web, key_callers
from tests.settings import hashed

BOSS_AUTH = {"Authorization": "Bearer boss"}


def boss_web() -> Web:
    """With an operator who may read the app."""
    settings = {"boss": CallerSettings(keys=(hashed("boss"),), apps=("shop",), operator=True)}
    return Web(callers=key_callers(settings))


async def test_the_body_has_the_documented_members(web: Web) -> None:
    """Counts have their public names; `saved` is the sum of hits and joins; the total is the sum over the callers."""
    counts = Counts(
        requests=20,
        hits=9,
        joined=3,
        stale=1,
        turns=6,
        waits=4,
        refusals=2,
        failed=5,
        watches=7,
        watched_s=90,
        events=800,
        resets=1,
    )
    web.gateway.usage_view = {
        "since_s": 1_749_999_960,
        "callers": (UsageByCaller(name="single", counts=counts), UsageByCaller(name="~ahead", counts=Counts(turns=1))),
        "minutes": (UsageInPeriod(start_s=1_749_999_960, counts=counts),),
        "hours": (UsageInPeriod(start_s=1_749_999_600, counts=counts),),
    }
    answer = await web.get("/usage")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    used = {
        "requests": 20,
        "hits": 9,
        "joins": 3,
        "stale": 1,
        "fetches": 6,
        "waits": 4,
        "refusals": 2,
        "failed": 5,
        "saved": 12,
        "watches": 7,
        "watched_seconds": 90,
        "events": 800,
        "resets": 1,
    }
    body = answer.json()
    assert body == {
        "app": "shop",
        "call": "list",
        "caller": "single",
        "redis": "ok",
        "since": "2025-06-15T15:06:00Z",
        "until": "2025-06-15T15:06:40Z",
        "total": used | {"fetches": 7},
        "callers": [{"caller": "single", "used": used}, {"caller": "~ahead", "used": body["callers"][1]["used"]}],
        "minutes": [{"start": "2025-06-15T15:06:00Z", "used": used}],
        "hours": [{"start": "2025-06-15T15:00:00Z", "used": used}],
    }
    assert (web.observed[-1].labels.app, web.observed[-1].labels.route) == ("shop", "/usage")


@pytest.mark.parametrize(
    ("query", "status", "parameter"),
    [
        ("", 400, "app"),
        ("?app=shop&app=news", 400, "app"),
        ("?app=shop&until=-PT5M", 400, "until"),
        ("?app=shop&since=yesterday", 400, "since"),
        ("?app=shop&since=PT1S", 400, "since"),
        (f"?app=shop&caller={'x' * 129}", 400, "caller"),
        ("?app=shop&caller=single", 403, None),
        ("?app=other", 404, None),
        ("?app=news&caller=several", 200, None),
    ],
)
async def test_parameters_are_read_strictly(web: Web, query: str, status: int, parameter: str | None) -> None:
    """Each fault names its parameter; a caller that is not an operator sees only itself, in its own apps."""
    answer = await web.get(f"/usage{query}", headers=MANY_AUTH)
    assert answer.status_code == status
    if parameter is not None:
        assert answer.json()["errors"][0]["parameter"] == parameter


async def test_an_operator_gets_403_for_a_foreign_app() -> None:
    """As with `/tasks`: 403 for another caller's app, 404 for a nonexistent one."""
    web = boss_web()
    async with web.client:
        assert (await web.client.get("/usage?app=news", headers=BOSS_AUTH)).status_code == 403
        assert (await web.client.get("/usage?app=none", headers=BOSS_AUTH)).status_code == 404


async def test_callers_see_themselves_and_operators_see_all(web: Web) -> None:
    """A caller that is not an operator can't choose whose usage it gets; the default period is an hour."""
    await web.get("/usage")
    await web.get("/usage?since=-PT15M")
    await web.get("/usage?since=2025-06-15T15:00:00Z")
    hour_ago_s = int(NOW_S) - 3600
    assert web.gateway.usage_requests == [
        ("shop", "single", hour_ago_s),
        ("shop", "single", int(NOW_S) - 900),
        ("shop", "single", int(NOW_S) - 400),
    ]
    operators = boss_web()
    async with operators.client:
        await operators.client.get("/usage", headers=BOSS_AUTH)
        await operators.client.get("/usage?caller=single", headers=BOSS_AUTH)
    assert operators.gateway.usage_requests == [("shop", None, hour_ago_s), ("shop", "single", hour_ago_s)]


async def test_a_key_is_required(web: Web) -> None:
    """A request without a key gets 401, as everywhere."""
    assert (await web.client.get("/usage?app=shop")).status_code == 401
