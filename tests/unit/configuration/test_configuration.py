"""Faulty configurations and the exact texts that they cause; the result of a valid one."""

from pathlib import Path

import pytest

from service.configuration import ConfigurationError, load
from service.settings import KeySettings, Settings
from tests.unit.configuration.folder import ENVIRON, GOOD, KEY_A, KEY_B, Folder


def test_a_valid_file_is_read(folder: Folder) -> None:
    """A valid file yields settings, with defaults for what it leaves out, and no warnings."""
    loaded = folder.load(GOOD)
    assert loaded.warnings == ()
    assert loaded.settings.apps["shop"].region == "china"
    assert loaded.settings.apps["my-news.eu"].region == "frankfurt"
    assert loaded.settings.budget.calls == 5


def test_all_faults_are_reported_at_once(folder: Folder) -> None:
    """Recoverable syntax, environment, keys, types, bounds and rules are reported together, each by its path."""
    text = """
apps:
  shop:
    sdkappid: "5"
    secret: x
    calls: .nan
  a b: 3
redis: {url: "redis://h:99999/x", timout_s: 1, password: p}
budget: {calls: 0, turn_lease_s: yes, wait_default_s: 50, window_s: .inf}
query: {since: P3D, until: 2026-13-01}
callers: {x: {keys: [abc], apps: nope}}
extra: 1
server: {log_level: loud, port: 1, port: 2, host: 1.5}
"""
    name = "expected a name of at most 63 characters: a-z, 0-9, dot, dash, underscore; a letter or digit at both ends"
    no_setting = "is not a setting (TASKGATE__SECTION__KEY, TASKGATE__APPS__NAME__KEY)"
    no_secret = "secrets must not be in this file; name a file"
    assert folder.faults(text, {"TASKGATE__SERVER__PROT": "1"}) == [
        "taskgate.yaml line 13: the key 'port' occurs twice",
        f"TASKGATE__SERVER__PROT: {no_setting}; the file's apps are shop, a b",
        f"extra: unknown key; known are {', '.join(Settings.__struct_fields__)}",
        f"apps.shop.secret: {no_secret} (`secret_file`) or an environment variable (`secret_env`)",
        "apps.shop.sdkappid: expected int, got str",
        "apps.shop.admin: is missing",
        "apps.shop.calls: is not a number (NaN)",
        f"apps.a b: {name}",
        "apps.a b: expected keys and values, got int",
        "callers.x.apps: expected a list, got str",
        "callers.x.keys[0]: expected 64 lower-case hex digits, the SHA-256 of a key; `taskgate key` makes one",
        "redis.timout_s: unknown key; did you mean timeout_s?",
        f"redis.password: {no_secret} (`password_file`) or an environment variable (`password_env`)",
        "budget.calls: expected int >= 1",
        "budget.window_s: is infinite",
        "budget.turn_lease_s: expected float, got str",
        "server.host: expected str, got float; put it in quotes",
        "server.log_level: expected one of debug, info, warning, error",
        "redis.url: the port must be from 1 to 65535",
        "redis.url: the database (after the slash) must be a number",
        "query.until: no such day in the calendar",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "apps: is missing"),
        ("- a\n", "taskgate.yaml: expected sections (`apps:`, `redis:`, ...) at the top"),
        ("apps:\n\tshop: 1\n", "taskgate.yaml line 2: a tab; indent with spaces"),
        ("apps: {\n", "taskgate.yaml line 2: not YAML: while parsing"),
        ("a: &x 1\nb: *x\n", "taskgate.yaml line 2: aliases (*name) are not supported; write the value out"),
        ("a: !!python/name:os.system x\n", "taskgate.yaml line 1: tags (!name) are not supported"),
        ("a: 1\n---\nb: 1\n", "taskgate.yaml line 2: a second document (---); one is expected"),
        ("[" * 100_000, "taskgate.yaml line 1: nested deeper than 16"),
        ("[a]: 1\n", "taskgate.yaml line 1: a key must be a plain word"),
        ("a: 1\nb: \x00\n", "taskgate.yaml line 2: a control character"),
        (b"a: 1\nb: \xff\n", "taskgate.yaml line 2: not UTF-8"),
        (b"#" * (1024 * 1024 + 1), "taskgate.yaml: is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_not_yaml_is_rejected_with_its_line(folder: Folder, text: str | bytes, fault: str) -> None:
    """A file that is not one plain YAML document is refused with the line, without a traceback or a crash."""
    assert folder.faults(text)[0].startswith(fault)


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    """A missing file, and a directory in its place, are reported like other faults."""
    for path, reason in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigurationError) as caught:
            load(path, {})
        assert str(caught.value) == f"{path}: can't be read: {reason}"


def test_no_text_repeats_a_secret(folder: Folder) -> None:
    """A secret in the wrong place is never repeated by a fault."""
    text = GOOD.replace("region: frankfurt", "secret: hunter2, region: 'hunter2', base_url: 'https://u:hunter2@h'")
    text = text.replace('"redis://127', '"redis://:hunter2@127').replace(KEY_A, "hunter2")
    text += "server: {log_level: hunter2, port: hunter2}\nquery: {since: hunter2}\n"
    faults = folder.faults(text, {"SHOP_SECRET": "hunter2\x01", "TASKGATE__BUDGET__CALLS": "hunter2"})
    assert len(faults) == 12, faults
    assert "hunter2" not in "\n".join(faults)


def test_a_relative_secret_file_counts_from_the_files_folder(folder: Folder) -> None:
    """A relative secret_file is found beside the configuration, in any working directory, and must not be empty."""
    text = GOOD.replace("secret_env: SHOP_SECRET", "secret_file: shop.secret", 1)
    (folder.path / "shop.secret").write_text("\n")
    assert folder.faults(text) == ["apps.shop.secret_file: the secret file shop.secret is empty"]
    (folder.path / "shop.secret").write_text("0123\n")
    assert folder.load(text).settings.apps["shop"].secret_file == str(folder.path / "shop.secret")


def test_words_that_yaml_1_1_converts_stay_texts(folder: Folder) -> None:
    """Dates, yes, no, 12:30 and a SHA-256 of digits alone are texts, as a person reads them."""
    text = GOOD.replace(f'"{KEY_A}"', "1" * 64) + "query: {since: 2026-01-01, until: 2026-02-01}\n"
    text = text.replace("  reports:", "  no:").replace("  shop:", "  123:").replace("[shop]", "['123']")
    settings = folder.load(text).settings
    assert settings.query.since == "2026-01-01"
    assert settings.callers["no"].keys == ("1" * 64,)
    assert "123" in settings.apps


def test_keys_are_read_with_and_without_expiry(folder: Folder) -> None:
    """A key is a string, or a mapping with its expiry."""
    text = GOOD.replace(f'["{KEY_A}"]', f'["{KEY_A}", {{sha256: "{KEY_B}", until: 2027-01-01}}]')
    assert folder.load(text).settings.callers["reports"].keys == (KEY_A, KeySettings(sha256=KEY_B, until="2027-01-01"))


def test_a_file_behind_a_link_is_named_by_the_link(folder: Folder) -> None:
    """Files beside a configuration mounted by links are looked up beside the link, which outlives its target."""
    (folder.path / "..one").mkdir()
    text = GOOD.replace("secret_env: SHOP_SECRET", "secret_file: shop.secret", 1)
    for name, content in (("taskgate.yaml", text), ("shop.secret", "0123")):
        (folder.path / "..one" / name).write_text(content)
        (folder.path / name).symlink_to(f"..one/{name}")
    settings = load(folder.path / "taskgate.yaml", ENVIRON).settings
    assert settings.apps["shop"].secret_file == str(folder.path / "shop.secret")
