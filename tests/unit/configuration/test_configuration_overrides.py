"""Settings from the environment."""

from pathlib import Path

import pytest

from service.configuration import ConfigurationError, load
from service.settings import Settings
from tests.unit.configuration.folder import ENVIRON, GOOD, Folder

FILE = f"""
apps:
  my-shop.eu: {{sdkappid: 1400000001, admin: administrator, secret_env: SHOP_SECRET}}
callers:
  reports: {{keys: ["{"a" * 64}"], apps: [my-shop.eu]}}
redis: {{url: "redis://127.0.0.1:6379/0"}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "taskgate.yaml"
    path.write_text(FILE)
    return path


def settings(file: Path, **environ: str) -> Settings:
    return load(file, {"SHOP_SECRET": "0123", **environ}).settings


def faults(file: Path, **environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        settings(file, **environ)
    return [str(fault) for fault in caught.value.faults]


def test_scalars_are_read_as_the_field_needs(file: Path) -> None:
    """Numbers, booleans, null, number-like texts, and lists as JSON reach their fields with their types."""
    read = settings(
        file,
        TASKGATE__REDIS__URL="unix:///run/valkey.sock",
        taskgate__apps__my_shop_eu__admin="123",
        TASKGATE__APPS__MY_SHOP_EU__REGION="tokyo",
        TASKGATE__APPS__MY_SHOP_EU__CALLS="7",
        TASKGATE__BUDGET__WINDOW_S="2",
        TASKGATE__UPSTREAM__BACKUP_HOSTS="false",
        TASKGATE__QUERY__RANGE_MAX_DAYS="null",
        TASKGATE__UPSTREAM__UNKNOWN_TASK_CODES="[90104, 90107]",
        TASKGATE__CALLERS__REPORTS__KEYS='["' + "b" * 64 + '"]',
    )
    assert read.redis.url == "unix:///run/valkey.sock"
    assert read.apps["my-shop.eu"].admin == "123"
    assert read.apps["my-shop.eu"].region == "tokyo"
    assert read.apps["my-shop.eu"].calls == 7
    assert read.budget.window_s == 2.0
    assert read.upstream.backup_hosts is False
    assert read.query.range_max_days is None
    assert read.upstream.unknown_task_codes == (90104, 90107)
    assert read.callers["reports"].keys == ("b" * 64,)


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("TASKGATE__SERVER__PORT", "x", "server.port: expected int, got str (set by TASKGATE__SERVER__PORT)"),
        ("TASKGATE__SERVER__PORT", "", "server.port: expected int, got null (set by TASKGATE__SERVER__PORT)"),
        ("TASKGATE__SERVER__PORT", "0", "server.port: expected int >= 1 (set by TASKGATE__SERVER__PORT)"),
        (
            "TASKGATE__BUDGET__WINDOW_S",
            "NaN",
            "budget.window_s: is not a number (NaN) (set by TASKGATE__BUDGET__WINDOW_S)",
        ),
        ("TASKGATE__BUDGET__WINDOW_S", "-inf", "budget.window_s: is infinite (set by TASKGATE__BUDGET__WINDOW_S)"),
        ("TASKGATE__CALLERS__REPORTS__APPS", "a,b", 'expected a JSON list of texts, such as ["a", "b"]'),
        ("TASKGATE__UPSTREAM__UNKNOWN_TASK_CODES", '["a"]', "expected a JSON list of whole numbers, such as [1, 2]"),
        ("TASKGATE__APPS__OTHER__REGION", "x", "is not a setting"),
        ("TASKGATE__SERVER", "{}", "is not a setting"),
        ("TASKGATE__SERVER__PORT__X", "1", "is not a setting"),
    ],
)
def test_a_faulty_override_names_its_variable(file: Path, variable: str, value: str, fault: str) -> None:
    """A faulty override is reported with the variable's name."""
    (text,) = faults(file, **{variable: value})
    assert fault in text
    assert variable in text


def test_ambiguous_names_are_rejected(file: Path) -> None:
    """Two apps whose names become the same, and two variables for one field, are ambiguities, not choices."""
    file.write_text(
        FILE.replace("callers:", "  my_shop-eu: {sdkappid: 1, admin: a, secret_env: SHOP_SECRET}\ncallers:")
    )
    assert faults(file, TASKGATE__APPS__MY_SHOP_EU__REGION="china") == [
        "TASKGATE__APPS__MY_SHOP_EU__REGION: may mean apps.my-shop.eu.region or apps.my_shop-eu.region"
    ]
    assert faults(file, TASKGATE__SERVER__PORT="1", TASKGATE__SERVER__port="2") == [
        "TASKGATE__SERVER__port: sets server.port, as TASKGATE__SERVER__PORT does"
    ]


def test_a_section_that_the_file_leaves_out_can_be_set(file: Path) -> None:
    """A required field may come from the environment alone."""
    file.write_text(FILE[: FILE.index("redis:")])
    assert settings(file, TASKGATE__REDIS__URL="redis://h").redis.url == "redis://h"
    file.write_text(FILE + "server: 3\n")
    assert "TASKGATE__SERVER__PORT: can't be applied: server holds no settings" in faults(
        file, TASKGATE__SERVER__PORT="1"
    )


def test_an_optional_section_can_be_set_from_the_environment(folder: Folder) -> None:
    """A section that is null by default takes overrides like any other."""
    prefix = "TASKGATE__SERVICE_ACCOUNTS__"
    environ = ENVIRON | {f"{prefix}ISSUER": "a", f"{prefix}AUDIENCE": "b", f"{prefix}JWKS_URL": "https://x"}
    loaded = folder.load(GOOD, environ | {f"{prefix}UNKNOWN__APPS": '["shop"]', "TASKGATE__AUTH": "none"})
    tokens = loaded.settings.service_accounts
    assert tokens is not None
    assert tokens.unknown is not None
    assert (tokens.issuer, tokens.unknown.apps, loaded.settings.auth) == ("a", ("shop",), "none")
