"""Callers of a real process: its files are swapped under load, its issuer fails, its guests are strangers."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service.sandbox.serving import Sandbox
from tests.integration.callers.mounted import APP, OTHER_APP, Mounted, mounted, sha256_of
from tests.scenes.fleet import key_of
from tests.servers import Server

ISSUER = "https://kubernetes.default.svc"


@pytest.fixture
def mount(tmp_path: Path, valkey: Server, sandbox: Sandbox) -> Mounted:
    return Mounted(tmp_path, valkey=valkey, sandbox=sandbox)


def tokens(**changed: Any) -> dict[str, Any]:
    return {"issuer": ISSUER, "audience": "taskgate"} | changed


def with_account(*accounts: str) -> dict[str, Any]:
    return {"reports": {"service_accounts": list(accounts), "apps": [APP]}}


async def test_no_request_is_dropped_while_files_are_swapped(mount: Mounted) -> None:
    """Under load, good and bad files in turn: a caller who is in all of them gets 200 and nothing else."""
    mount.put("steady")
    async with mounted(mount):
        statuses: list[int] = []
        end_s = time.monotonic() + 20

        async def load() -> None:
            while not done.is_set() and time.monotonic() < end_s:
                statuses.append((await mount.ask(key_of("steady"))).status)

        done = asyncio.Event()
        asking = [asyncio.create_task(load()) for _ in range(4)]
        for number in range(3):
            mount.put("steady", f"guest{number}", cache={"fresh_s": 10 + number})
            await mount.told("settings.reloaded", number + 1)
            assert (await mount.ask(key_of(f"guest{number}"))).status == 200
            mount.put(text="apps: {")
            await mount.told("settings.refused", number + 1)
            assert (await mount.ask(key_of(f"guest{number}"))).status == 200
        done.set()
        await asyncio.gather(*asking)
        assert len(statuses) > 100
        assert set(statuses) == {200}
    assert len(mount.events("settings.reloaded")) == 3


async def test_what_a_reload_takes_away_is_gone_with_the_next_request(mount: Mounted) -> None:
    """A page that was just served from memory is not served again: key, app and caller in turn are taken away."""
    mount.put("going", "staying")
    async with mounted(mount):
        for _ in range(2):
            assert (await mount.ask(key_of("going"))).status == 200
        rotated = {"keys": [sha256_of("another")], "apps": [APP]}
        staying = {"keys": [sha256_of(key_of("staying"))], "apps": [APP]}
        mount.put(callers={"going": rotated, "staying": staying})
        await mount.told("settings.reloaded", 1)
        refused = await mount.ask(key_of("going"))
        assert (refused.status, refused.headers["www-authenticate"]) == (
            401,
            'Bearer realm="taskgate", error="invalid_token"',
        )
        assert (await mount.ask("another")).status == 200
        mount.put(callers={"going": rotated | {"apps": [OTHER_APP]}, "staying": staying})
        await mount.told("settings.reloaded", 2)
        assert (await mount.ask("another")).status == 404
        mount.put("staying")
        await mount.told("settings.reloaded", 3)
        assert (await mount.ask("another")).status == 401
        assert (await mount.ask(key_of("staying"))).status == 200


async def test_answers_of_other_settings_are_not_sent_again(mount: Mounted) -> None:
    """A page that is kept whole goes when the defaults that it was made by change."""
    mount.put("c", query={"since": "-P30D", "until": "P30D"})
    async with mounted(mount):
        for _ in range(3):
            before = await mount.ask(key_of("c"))
        mount.put("c", query={"since": "-P30D", "until": "-P29D"})
        await mount.told("settings.reloaded", 1)
        after = await mount.ask(key_of("c"))
        assert (before.status, after.status) == (200, 200)
        assert after.body != before.body


async def test_service_accounts_and_an_issuer_that_fails(mount: Mounted, signer: Any, key_server: Any) -> None:
    """Tokens are taken, also when the issuer is gone; a flood of unknown keys asks it no more than once."""
    async with key_server.served() as base:
        mount.put(callers=with_account("shop/reports"), service_accounts=tokens(jwks_url=base))
        async with mounted(mount):
            assert (await mount.ask(signer.token("one"))).status == 200
            stranger = await mount.ask(signer.token("one", "shop/other"))
            assert (stranger.status, stranger.json["type"]) == (403, "/problems/not-allowed")
            assert (await mount.ask(signer.token("one", aud=["other"]))).status == 401
            flood = [type(signer)("unknown").token("unknown") for _ in range(100)]
            answers = await asyncio.gather(*(mount.ask(token) for token in flood))
            assert {answer.status for answer in answers} == {401}
            assert len(key_server.heads) == 1
            key_server.status = 500
            assert (await mount.ask(signer.token("two"))).status == 200


async def test_tokens_wait_for_the_first_keys(mount: Mounted, signer: Any, key_server: Any) -> None:
    """While the issuer was never reached tokens are 503 with Retry-After, keys are taken; then tokens are, too."""
    async with key_server.served() as base:
        pass
    callers = {
        "reports": {
            "service_accounts": ["shop/reports"],
            "keys": [{"sha256": sha256_of("key"), "until": "2100-01-01"}],
            "apps": [APP],
        }
    }
    mount.put(callers=callers, service_accounts=tokens(jwks_url=base))
    async with mounted(mount):
        early = await mount.ask(signer.token("one"))
        assert (early.status, early.json["type"]) == (503, "/problems/keys-unavailable")
        assert int(early.headers["retry-after"]) >= 1
        assert (await mount.ask("key")).status == 200
        async with key_server.served():
            await mount.told("issuer.keys_had", 1)
            assert (await mount.ask(signer.token("one"))).status == 200


async def test_keys_in_a_file_are_followed(mount: Mounted, signer: Any, tmp_path: Path) -> None:
    """A key that has left the file takes its tokens along, within seconds and without a restart."""
    jwks = tmp_path / "jwks.json"
    jwks.write_bytes(signer.jwks("one"))
    mount.put(callers=with_account("shop/reports"), service_accounts=tokens(jwks_file=str(jwks)))
    async with mounted(mount):
        token = signer.token("one")
        assert (await mount.ask(token)).status == 200
        jwks.write_bytes(signer.jwks("two"))
        await mount.told("issuer.keys_had", 2)
        assert (await mount.ask(token)).status == 401
        assert (await mount.ask(signer.token("two"))).status == 200


async def test_auth_none_is_told_at_the_start(mount: Mounted) -> None:
    """Whoever comes may read every app, and the log warns of it."""
    mount.put(auth="none")
    async with mounted(mount):
        for path in (f"/tasks?app={APP}", f"/tasks?app={OTHER_APP}"):
            assert (await mount.ask(None, path)).status == 200
        warnings = {event["path"] for event in mount.events("settings.warning")}
        assert warnings == {"auth"}


async def test_a_1_mb_header_is_refused(mount: Mounted) -> None:
    """A header far beyond the bound ends with 431 or the connection, and others are served."""
    mount.put("c")
    async with mounted(mount):
        with suppress(ConnectionError):  # the server may close before all was sent
            assert (await mount.ask(None, fields={"X-Large": "x" * 1_000_000})).status == 431
        assert (await mount.ask(key_of("c"))).status == 200
