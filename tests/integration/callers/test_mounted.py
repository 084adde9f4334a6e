"""The callers of a real process while its files are swapped under load, its issuer fails, or accounts are unknown."""

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service.sandbox.serving import Sandbox
from tests.integration.callers.mounted import APP, OTHER_APP, Mounted, mounted
from tests.scenes.fleet import key_of
from tests.servers import Server
from tests.settings import hashed

ISSUER = "https://kubernetes.default.svc"


@pytest.fixture
def mount(tmp_path: Path, valkey: Server, sandbox: Sandbox) -> Mounted:
    return Mounted(tmp_path, valkey=valkey, sandbox=sandbox)


def tokens(**changed: Any) -> dict[str, Any]:
    return {"issuer": ISSUER, "audience": "taskgate"} | changed


def with_account(*accounts: str) -> dict[str, Any]:
    return {"reports": {"service_accounts": list(accounts), "apps": [APP]}}


async def test_no_request_is_dropped_while_files_are_swapped(mount: Mounted) -> None:
    """Under load, good and bad files in turn: a caller that is in all of them gets 200 and nothing else."""
    mount.put("steady")
    async with mounted(mount):
        statuses: list[int] = []
        end_s = time.monotonic() + 60

        async def load() -> None:
            while not done.is_set() and time.monotonic() < end_s:
                statuses.append((await mount.ask(key_of("steady"))).status)

        done = asyncio.Event()
        asking = [asyncio.create_task(load()) for _ in range(4)]
        for number in range(3):
            mount.put("steady", f"guest{number}", cache={"fresh_s": 10 + number})
            await mount.logged("settings.reloaded", number + 1)
            assert (await mount.ask(key_of(f"guest{number}"))).status == 200
            mount.put(text="apps: {")
            await mount.logged("settings.refused", number + 1)
            assert (await mount.ask(key_of(f"guest{number}"))).status == 200
        done.set()
        await asyncio.gather(*asking)
        assert len(statuses) > 100
        assert set(statuses) == {200}
    assert len(mount.events("settings.reloaded")) == 3


async def test_a_reload_revokes_with_the_next_request(mount: Mounted) -> None:
    """After a reload that removes the key, the app or the caller, a page is not served from memory any more."""
    mount.put("going", "staying")
    async with mounted(mount):
        for _ in range(2):
            assert (await mount.ask(key_of("going"))).status == 200
        rotated = {"keys": [hashed("another")], "apps": [APP]}
        staying = {"keys": [hashed(key_of("staying"))], "apps": [APP]}
        mount.put(callers={"going": rotated, "staying": staying})
        await mount.logged("settings.reloaded", 1)
        refused = await mount.ask(key_of("going"))
        assert (refused.status, refused.headers["www-authenticate"]) == (
            401,
            'Bearer realm="taskgate", error="invalid_token"',
        )
        assert (await mount.ask("another")).status == 200
        mount.put(callers={"going": rotated | {"apps": [OTHER_APP]}, "staying": staying})
        await mount.logged("settings.reloaded", 2)
        assert (await mount.ask("another")).status == 404
        mount.put("staying")
        await mount.logged("settings.reloaded", 3)
        assert (await mount.ask("another")).status == 401
        assert (await mount.ask(key_of("staying"))).status == 200


async def test_a_reload_drops_cached_responses(mount: Mounted) -> None:
    """A complete cached answer is dropped when the defaults that it was made with change."""
    mount.put("c", query={"since": "-P30D", "until": "P30D"})
    async with mounted(mount):
        for _ in range(3):
            before = await mount.ask(key_of("c"))
        mount.put("c", query={"since": "-P30D", "until": "-P29D"})
        await mount.logged("settings.reloaded", 1)
        after = await mount.ask(key_of("c"))
        assert (before.status, after.status) == (200, 200)
        assert after.body != before.body


async def test_tokens_are_accepted_while_the_issuer_fails(mount: Mounted, signer: Any, key_server: Any) -> None:
    """Tokens are accepted even while the issuer is unreachable; a flood of unknown keys fetches from it only once."""
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
    """While the issuer was never reached tokens get 503 with Retry-After, keys are accepted; then tokens are, too."""
    async with key_server.served() as base:
        pass
    callers = {
        "reports": {
            "service_accounts": ["shop/reports"],
            "keys": [{"sha256": hashed("key"), "until": "2100-01-01"}],
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
            await mount.logged("issuer.keys_fetched", 1)
            assert (await mount.ask(signer.token("one"))).status == 200


async def test_responses_for_a_dropped_signing_key_are_dropped(mount: Mounted, signer: Any, key_server: Any) -> None:
    """A complete cached answer goes with its token's key: when it is removed, and when another takes its name.

    The keys come from a URL, so no file of the configuration changes with them.
    """
    async with key_server.served() as base:
        mount.put(callers=with_account("shop/reports"), service_accounts=tokens(jwks_url=base, refresh_s=1))
        async with mounted(mount):
            for count, kid in ((2, "one"), (4, "two")):
                for _ in range(3):
                    assert (await mount.ask(signer.token(kid))).status == 200
                kept = signer.token(kid)
                for _ in range(3):
                    assert (await mount.ask(kept)).status == 200
                other = type(signer)(kid)
                key_server.body = signer.jwks("two") if kid == "one" else other.jwks()
                async with asyncio.timeout(20):
                    while (await mount.ask(kept)).status == 200:
                        await asyncio.sleep(0.05)
                assert (await mount.ask(kept)).status == 401
                assert count
            assert (await mount.ask(other.token("two"))).status == 200


async def test_a_reload_changes_lifetimes(mount: Mounted) -> None:
    """A reload changes how long pages are fresh, and how long Redis keeps them."""
    mount.put("c", cache={"fresh_s": 100.0, "settled_s": 100.0, "stale_if_error_s": 0.0})
    async with mounted(mount):
        before = await mount.ask(key_of("c"))
        assert "max-age=100" in before.headers["cache-control"]
        mount.put("c", cache={"fresh_s": 2000.0, "settled_s": 2000.0, "stale_if_error_s": 0.0})
        await mount.logged("settings.reloaded", 1)
        after = await mount.ask(key_of("c"))
        assert "max-age=2000" in after.headers["cache-control"]
        await mount.ask(key_of("c"), f"/tasks?app={APP}&limit=1&q=new")
        assert mount.longest_ttl_ms() > 1_000_000


async def test_a_reload_rejects_requests_waiting_with_a_removed_key(mount: Mounted) -> None:
    """Requests waiting with a removed key are rejected at once, without a call; others keep waiting and are served."""
    budget = {"calls": 1, "window_s": 6.0, "wait_default_s": 20.0}
    mount.put("going", "staying", budget=budget)
    async with mounted(mount):
        assert (await mount.ask(key_of("going"), f"/tasks?app={APP}&q=0")).status == 200
        going = asyncio.create_task(mount.ask(key_of("going"), f"/tasks?app={APP}&q=1"))
        staying = asyncio.create_task(mount.ask(key_of("staying"), f"/tasks?app={APP}&q=2"))
        await asyncio.sleep(0.5)
        mount.put("staying", budget=budget)
        refused = await going
        assert (refused.status, refused.json["type"]) == (401, "/problems/unauthenticated")
        assert not staying.done()
        assert (await staying).status == 200


async def test_a_stream_ends_with_its_token(mount: Mounted, signer: Any, key_server: Any) -> None:
    """A stream ends when its token expires, even while it waits for a block: the last line says why, and where to
    continue."""
    budget = {"calls": 1, "window_s": 10.0, "wait_default_s": 20.0}
    async with key_server.served() as base:
        mount.put(callers=with_account("shop/reports"), service_accounts=tokens(jwks_url=base), budget=budget)
        async with mounted(mount):
            assert (await mount.ask(signer.token("one"), f"/tasks?app={APP}&since=-P60D")).status == 200
            expires_s = time.time() + 2
            token = signer.token("one", exp=expires_s)
            stream = await mount.ask(token, f"/tasks?app={APP}&since=-P60D", {"Accept": "application/x-ndjson"})
            assert expires_s <= time.time() < expires_s + 6  # the block comes 8 s later
            assert stream.status == 200, stream.body
            [last] = [line for line in stream.body.splitlines() if line.startswith(b'{"end"')]
            end = json.loads(last)["end"]
            assert (end["complete"], end["problem"]["type"]) == (False, "/problems/unauthenticated")
            assert end["next"].endswith(f"offset={end['count']}")


async def test_keys_in_a_file_are_followed(mount: Mounted, signer: Any, tmp_path: Path) -> None:
    """Removing a key from the file invalidates its tokens, within seconds and without a restart."""
    jwks = tmp_path / "jwks.json"
    jwks.write_bytes(signer.jwks("one"))
    mount.put(callers=with_account("shop/reports"), service_accounts=tokens(jwks_file=str(jwks)))
    async with mounted(mount):
        token = signer.token("one")
        assert (await mount.ask(token)).status == 200
        jwks.write_bytes(signer.jwks("two"))
        await mount.logged("issuer.keys_fetched", 2)
        assert (await mount.ask(token)).status == 401
        assert (await mount.ask(signer.token("two"))).status == 200


async def test_auth_none_is_logged_at_startup(mount: Mounted) -> None:
    """Any client may read every app, and the log warns of it."""
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
