"""The contract's examples are real: what the sandbox lists, and how a running gateway answers."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.model.tasks import Listing
from service.sandbox.listing import ListRequest, SandboxTasks
from service.sandbox.tasks import generate_tasks
from service.sandbox.upstream import APPS
from service.upstream.list_call import read_listing
from tests.http.site import Web
from tests.scenes.fleet import fleet
from tests.servers import Server

PATHS = json.loads((Path(__file__).parents[2] / "openapi" / "openapi.json").read_bytes())["paths"]


def example(path: str, media_type: str = "application/json") -> Any:
    """Return the contract's example of a good answer."""
    return PATHS[path]["get"]["responses"]["200"]["content"][media_type]["example"]


def fits(answer: object, shown: object) -> bool:
    """Whether members, their order and types are the same; null fits anything; the upstream's content and
    maps of results are free.
    """
    if isinstance(answer, dict) and isinstance(shown, dict):
        return list(answer) == list(shown) and all(
            name in ("content", "failed") or fits(member, shown[name]) for name, member in answer.items()
        )
    if isinstance(answer, list) and isinstance(shown, list):
        return not answer or not shown or fits(answer[0], shown[0])
    return answer is None or shown is None or {type(answer), type(shown)} <= {int, float} or type(answer) is type(shown)


def test_the_example_of_a_page_is_from_the_sandbox() -> None:
    """The page in the contract equals the sandbox's answer to that query, as the gateway reads it."""
    shown = example("/tasks")
    begin_s, end_s, now_s = (
        int(datetime.fromisoformat(shown[name]).timestamp()) for name in ("since", "until", "fetched_at")
    )
    number = APPS[0].sdkappid
    wanted = ListRequest(
        field="scheduled",
        ascending=shown["sort"] == "scheduled_at",
        begin_s=begin_s,
        end_s=end_s,
        offset=shown["offset"],
        want=shown["limit"],
        keyword=shown["q"],
    )
    tasks = SandboxTasks(generate_tasks(seed=1, sdkappid=number, start_s=now_s), total=2000)
    answer = msgspec.json.encode(tasks.page(wanted, sdkappid=number, now_s=now_s))
    listing = read_listing(answer, sdkappid=number, offset=shown["offset"], want=shown["limit"])
    assert isinstance(listing, Listing)
    assert shown["app"] == APPS[0].name
    assert shown["total"] == listing.total
    assert shown["tasks"] == json.loads(msgspec.json.encode(listing.tasks))


@pytest.mark.scene
async def test_answers_look_like_their_examples(own_valkey: Server) -> None:
    """A running gateway over the sandbox answers with the members and types that the examples show, in their order."""
    targets = {
        "/tasks": "/tasks?app=shop&q=sale&sort=scheduled_at&limit=1",
        **dict.fromkeys(("/apps", "/budget", "/usage", "/livez", "/readyz", "/version")),
    }
    async with fleet(own_valkey, replicas=1) as gateways:
        for path, target in targets.items():
            answer = await gateways.ask(0, target or path, caller="c0")
            assert answer.status == 200
            assert fits(answer.json, example(path)), (path, answer.json)


@pytest.mark.parametrize("media_type", ["text/plain", "text/html"])
async def test_descriptions_of_problems_match_their_examples(media_type: str) -> None:
    """The texts of `/problems` and of one problem are word for word those in the contract."""
    async with Web().client as client:
        for path, target in (("/problems", "/problems"), ("/problems/{name}", "/problems/wait-too-long")):
            answer = await client.get(target, headers={"Accept": media_type})
            assert answer.text == example(path, media_type)
