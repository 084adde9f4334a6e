"""Settings that change at run time are applied or rejected as a whole."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs

from service.callers.table import table_of
from service.configuration import load
from service.configuration.watch import ConfigurationWatcher, changed_paths
from service.settings import Settings

ENVIRON = {"SHOP_SECRET": "0123"}


class Mount:
    """A folder as Kubernetes mounts it: each file is a link into `..data`, a link that is swapped in one step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "taskgate.yaml"
        self._generation = 0

    def put(self, settings: dict[str, Any] | str, **files: str) -> None:
        """Write all files into a new folder and swap the link; the old folder is removed."""
        text = settings if isinstance(settings, str) else yaml.safe_dump(settings)
        self._generation += 1
        folder = self.path / f"..{self._generation}"
        folder.mkdir()
        for name, content in {"taskgate.yaml": text, **files}.items():
            (folder / name).write_text(content)
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        (self.path / "..new").symlink_to(folder.name)
        os.replace(self.path / "..new", self.path / "..data")


def document(**changed: Any) -> dict[str, Any]:
    return {
        "apps": {"shop": {"sdkappid": 1400000001, "admin": "a", "secret_env": "SHOP_SECRET"}},
        "callers": {"reports": {"keys": ["a" * 64], "apps": ["shop"]}},
        "redis": {"url": "redis://127.0.0.1"},
        **changed,
    }


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    mount = Mount(tmp_path)
    mount.put(document())
    return mount


class Following:
    """A reload, and the settings that it has applied."""

    def __init__(self, mount: Mount) -> None:
        self.applied: list[Settings] = []
        running = load(mount.file, ENVIRON).settings
        self.counted: list[bool] = []
        self.needs_restart = False
        self.reload = ConfigurationWatcher(
            str(mount.file), ENVIRON, running=running, apply=self.applied.append, on_reload=self._report
        )

    def _report(self, *, ok: bool, needs_restart: bool) -> None:
        self.counted.append(ok)
        self.needs_restart = needs_restart


async def test_a_change_is_applied_once(mount: Mount) -> None:
    """A swapped link is detected, and nothing is applied while nothing changes, even if new content is the same."""
    following = Following(mount)
    await following.reload.check()
    assert following.applied == []
    mount.put(document(callers={}))
    with capture_logs() as logs:
        await following.reload.check()
        await following.reload.check()
    assert [settings.callers for settings in following.applied] == [{}]
    assert following.counted == [True]
    assert [entry["event"] for entry in logs] == ["settings.reloaded", "settings.warning"]


async def test_a_file_written_in_place_is_seen(mount: Mount) -> None:
    """The change need not be a swapped link."""
    following = Following(mount)
    (mount.path / "..1" / "taskgate.yaml").write_text(yaml.safe_dump(document(callers={})))
    await following.reload.check()
    assert len(following.applied) == 1


@pytest.mark.parametrize("bad", ["apps: {", document(apps={}), document(query={"since": "x"}, extra=1)])
async def test_a_bad_file_is_refused(mount: Mount, bad: dict[str, Any] | str) -> None:
    """All faults are logged, the rejection is counted once, and the old settings stay until a valid file appears."""
    following = Following(mount)
    mount.put(bad)
    with capture_logs() as logs:
        await following.reload.check()
        await following.reload.check()
    assert following.applied == []
    assert following.counted == [False]
    assert [entry["event"] for entry in logs] == ["settings.refused"]
    assert len(logs[0]["faults"]) >= 1
    mount.put(document(callers={}))
    await following.reload.check()
    assert len(following.applied) == 1
    assert following.counted == [False, True]


async def test_a_missing_file_is_a_bad_one_until_it_returns(mount: Mount) -> None:
    """A missing file is a bad one; the same file back is a change."""
    following = Following(mount)
    (mount.path / "..data").unlink()
    await following.reload.check()
    assert following.counted == [False]
    mount.put(document())
    await following.reload.check()
    assert following.counted == [False, True]


async def test_a_bad_secret_is_reported(mount: Mount) -> None:
    """A secret's file that turns bad is a rejection, even if the settings are the same."""
    app = {"sdkappid": 1400000001, "admin": "a", "secret_file": "shop.secret"}
    mount.put(document(apps={"shop": app}), **{"shop.secret": "0123"})
    following = Following(mount)
    mount.put(document(apps={"shop": app}), **{"shop.secret": ""})
    with capture_logs() as logs:
        await following.reload.check()
    assert logs[0]["faults"] == [f"apps.shop.secret_file: the secret file {mount.path}/shop.secret is empty"]
    mount.put(document(apps={"shop": app}), **{"shop.secret": "4567"})
    await following.reload.check()
    assert following.counted == [False, True]


async def test_a_file_read_at_the_start_needs_a_restart(mount: Mount) -> None:
    """Its changed content is reported, until it is as before; a file rewritten with the same content is not."""
    settings = document(redis={"url": "redis://127.0.0.1", "password_file": "redis.password"})
    mount.put(settings, **{"redis.password": "one"})
    following = Following(mount)
    seen: list[tuple[bool, list[Any]]] = []
    for password in ("one", "two", "one"):
        mount.put(settings, **{"redis.password": password})
        with capture_logs() as logs:
            await following.reload.check()
        named = [path for entry in logs if entry["event"] == "settings.restart_needed" for path in entry["paths"]]
        seen.append((following.needs_restart, named))
    assert seen == [(False, []), (True, ["redis.password_file"]), (False, [])]
    assert following.counted == [True, True, True]
    mount.put("apps: {")
    await following.reload.check()
    assert (following.counted[-1], following.needs_restart) == (False, False)


async def test_changes_that_need_a_restart_are_reported(mount: Mount) -> None:
    """Live settings are applied; of the rest each path is named, once for every reload."""
    following = Following(mount)
    app = {"sdkappid": 1400000001, "admin": "b", "secret_env": "SHOP_SECRET"}
    mount.put(
        document(
            apps={"shop": app, "news": {**app, "sdkappid": 1400000002}},
            budget={"calls": 4, "wait_max_s": 20},
            cache={"fresh_s": 1, "block_size": 50},
            server={"port": 1},
        )
    )
    with capture_logs() as logs:
        await following.reload.check()
    (warning,) = [entry for entry in logs if entry["event"] == "settings.restart_needed"]
    assert warning["paths"] == ("apps.shop.admin", "apps.news", "budget.calls", "cache.block_size", "server.port")
    assert following.applied[0].cache.fresh_s == 1


async def test_a_removed_app_needs_no_restart(mount: Mount) -> None:
    """The settings without it are applied, and no restart is pending."""
    app = document()["apps"]["shop"]
    mount.put(document(apps={"shop": app, "news": {**app, "sdkappid": 1400000002}}))
    following = Following(mount)
    mount.put(document())
    with capture_logs() as logs:
        await following.reload.check()
    assert [entry["event"] for entry in logs] == ["settings.reloaded"]
    assert set(following.applied[0].apps) == {"shop"}


async def test_added_and_removed_service_accounts_need_no_restart(mount: Mount) -> None:
    """Without the section no token is accepted; with it they are, by its own keys; no restart is pending."""
    tokens = {"issuer": "https://issuer", "audience": "taskgate", "jwks_url": "https://issuer/keys"}
    mount.put(document(service_accounts=tokens))
    following = Following(mount)
    mount.put(document())
    with capture_logs() as logs:
        await following.reload.check()
    assert [entry["event"] for entry in logs] == ["settings.reloaded"]
    assert table_of(following.applied[0]).trust is None
    begun_without = Following(mount)
    mount.put(document(service_accounts=tokens))
    with capture_logs() as logs:
        await begun_without.reload.check()
    assert [entry["event"] for entry in logs] == ["settings.reloaded"]
    assert table_of(begun_without.applied[0]).trust is not None


async def test_a_reload_never_disables_authentication(mount: Mount) -> None:
    """`auth: none` needs a restart, which checks it against the listening address; its end does not."""
    following = Following(mount)
    mount.put(document(auth="none"))
    with capture_logs() as logs:
        await following.reload.check()
    assert following.applied[0].auth == "callers"
    assert ("auth",) in [entry.get("paths") for entry in logs]
    begun_open = Following(mount)
    mount.put(document())
    with capture_logs() as logs:
        await begun_open.reload.check()
    assert begun_open.applied[0].auth == "callers"
    assert [entry["event"] for entry in logs] == ["settings.reloaded"]


def test_changes_are_named_by_their_deepest_common_path(mount: Mount) -> None:
    """Differences are named as deep as both sides go."""
    old = load(mount.file, ENVIRON).settings
    mount.put(document(callers={"reports": {"keys": [], "apps": ["shop"]}, "other": {"apps": []}}))
    new = load(mount.file, ENVIRON).settings
    assert list(changed_paths(old, new)) == ["callers.reports.keys", "callers.other"]
    assert list(changed_paths(new, new)) == []
