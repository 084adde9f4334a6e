"""Faulty configurations and the exact texts they cause; the result of a good one."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from service.configuration import ConfigurationError, Loaded, load
from service.settings import KeySettings, Settings
from service.upstream.regions import REGION_NAMES

KEY_A = "a" * 64
KEY_B = "b" * 64
GOOD = f"""
apps:
  shop: {{sdkappid: 1400000001, admin: administrator, secret_env: SHOP_SECRET}}
  my-news.eu: {{sdkappid: 40000001, admin: administrator, secret_env: SHOP_SECRET, region: frankfurt}}
callers:
  reports: {{keys: ["{KEY_A}"], apps: [shop]}}
redis: {{url: "redis://127.0.0.1:6379/0"}}
"""
ENVIRON = {"SHOP_SECRET": "0123456789abcdef"}


class Folder:
    """Loads configurations from a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, text: str | bytes, environ: Mapping[str, str] = ENVIRON) -> Loaded:
        file = self.path / "taskgate.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(file, environ)

    def faults(self, text: str | bytes, environ: Mapping[str, str] = ENVIRON) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            self.load(text, environ)
        return [str(fault).replace(f"{self.path}/", "") for fault in caught.value.faults]

    def warnings(self, text: str, environ: Mapping[str, str] = ENVIRON) -> list[str]:
        return [str(warning) for warning in self.load(text, environ).warnings]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_good_file_is_read(folder: Folder) -> None:
    """A good file yields settings, defaults where it is silent, and no warnings."""
    loaded = folder.load(GOOD)
    assert loaded.warnings == ()
    assert loaded.settings.apps["shop"].region == "china"
    assert loaded.settings.apps["my-news.eu"].region == "frankfurt"
    assert loaded.settings.budget.calls == 5


def test_all_faults_are_told_at_once(folder: Folder) -> None:
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
    no_setting = "names no setting (TASKGATE__SECTION__KEY, TASKGATE__APPS__NAME__KEY)"
    no_secret = "no secret stands in this file; name a file"
    assert folder.faults(text, {"TASKGATE__SERVER__PROT": "1"}) == [
        "taskgate.yaml line 13: the key 'port' stands twice",
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
def test_what_is_no_document_is_told_with_its_line(folder: Folder, text: str | bytes, fault: str) -> None:
    """A file that is not one plain YAML document is refused with the line, without a traceback or a crash."""
    assert folder.faults(text)[0].startswith(fault)


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    """A missing file, and a directory in its place, are reported like other faults."""
    for path, reason in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigurationError) as caught:
            load(path, {})
        assert str(caught.value) == f"{path}: can't be read: {reason}"


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        (
            "admin: administrator, secret_env: SHOP_SECRET}",
            "admin: administrator}",
            ["apps.shop: one of secret_file and secret_env is needed"],
        ),
        (
            "secret_env: SHOP_SECRET}",
            "secret_env: SHOP_SECRET, secret_file: x}",
            ["apps.shop: secret_file and secret_env are both set; one of them must go"],
        ),
        (
            "secret_env: SHOP_SECRET}",
            "secret_env: NO_SECRET}",
            ["apps.shop.secret_env: the environment variable NO_SECRET is not set"],
        ),
        (
            "secret_env: SHOP_SECRET}",
            "secret_file: none}",
            ["apps.shop.secret_file: the secret file none can't be read: No such file or directory"],
        ),
        (
            "region: frankfurt",
            "region: mars",
            [
                "apps.my-news.eu.region: no such region; there are " + ", ".join(REGION_NAMES),
            ],
        ),
        (
            "region: frankfurt",
            "region: frankfurt, base_url: 'https://x'",
            ["apps.my-news.eu: region and base_url are both set; one of them must go"],
        ),
        (
            "region: frankfurt",
            "base_url: 'https://x/?a=1'",
            ["apps.my-news.eu.base_url: a base URL has neither a query nor a fragment"],
        ),
        ("region: frankfurt", "base_url: x", ["apps.my-news.eu.base_url: a base URL starts with https:// or http://"]),
        ("apps: [shop]", "apps: [shop, y]", ["callers.reports.apps[1]: no such app; there are shop, my-news.eu"]),
        (
            f'{{keys: ["{KEY_A}"], apps: [shop]}}',
            f'{{keys: ["{KEY_A}"], apps: [shop]}}\n  other: {{keys: ["{KEY_B}", "{KEY_A}"], apps: [shop]}}',
            ["callers.other.keys[1]: the same key as callers.reports.keys[0]"],
        ),
        (
            f'keys: ["{KEY_A}"]',
            f"keys: [{{sha256: {KEY_A}, until: -P1D}}, {{sha256: {KEY_B}, until: soon}}, {KEY_A}]",
            [
                "callers.reports.keys[0].until: must be a date or an instant: 2027-01-01 or 2027-01-01T12:00:00Z",
                "callers.reports.keys[1].until: must be a date or an instant: 2027-01-01 or 2027-01-01T12:00:00Z",
                "callers.reports.keys[2]: the same key as callers.reports.keys[0]",
            ],
        ),
        (
            f'keys: ["{KEY_A}"]',
            f"keys: [{{til: 1}}, 7, {{until: 2027-01-01}}, {{sha256: {KEY_A}, until: 2027}}]",
            [
                "callers.reports.keys[0].til: unknown key; did you mean until?",
                "callers.reports.keys[0].sha256: is missing",
                "callers.reports.keys[1]: expected str, got int; put it in quotes",
                "callers.reports.keys[2].sha256: is missing",
                "callers.reports.keys[3].until: expected str, got int",
            ],
        ),
        (
            f'keys: ["{KEY_A}"]',
            "service_accounts: [shop/reports, shop, Shop/x, shop/reports]",
            [
                "callers.reports.service_accounts[1]: expected NAMESPACE/NAME of a service account",
                "callers.reports.service_accounts[2]: expected NAMESPACE/NAME of a service account",
            ],
        ),
        (
            f'keys: ["{KEY_A}"]',
            "service_accounts: [shop/reports, shop/reports]",
            [
                "callers.reports.service_accounts[1]: the same as callers.reports.service_accounts[0]",
                "callers.reports.service_accounts: needs the section service_accounts",
            ],
        ),
        (
            "redis:",
            "service_accounts: {issuer: a, audience: b}\nredis:",
            ["service_accounts: one of jwks_url and jwks_file is needed"],
        ),
        (
            "redis:",
            "service_accounts: {issuer: a, audience: b, jwks_url: 'ftp://x', jwks_file: none}\nredis:",
            [
                "service_accounts: jwks_url and jwks_file are both set; one of them must go",
                "service_accounts.jwks_file: the file none can't be read: No such file or directory",
            ],
        ),
        (
            "redis:",
            "service_accounts: {issuer: a, audience: b, jwks_url: 'https://u:p@x', unknown: {apps: [y]}}\nredis:",
            [
                "service_accounts.jwks_url: holds a user or a password; name a token_file instead",
                "service_accounts.unknown.apps[0]: no such app; there are shop, my-news.eu",
            ],
        ),
        (
            "redis:",
            "service_accounts: {issuer: a, jwks_url: 'https://x', unknown: {app: [y]}}\nredis:",
            [
                "service_accounts.audience: is missing",
                "service_accounts.unknown.app: unknown key; did you mean apps?",
                "service_accounts.unknown.apps: is missing",
            ],
        ),
        (
            "redis:",
            "auth: none\nserver: {host: 0.0.0.0}\nredis:",
            ["auth: none is for loopback alone; server.host must be 127.0.0.1, ::1 or localhost"],
        ),
        ("redis:", "auth: nobody\nredis:", ["auth: expected one of callers, none"]),
        ('"redis://127.0.0.1:6379/0"', "http://h", ["redis.url: expected redis://, rediss:// or unix://"]),
        ('"redis://127.0.0.1:6379/0"', '"redis://:1"', ["redis.url: names no host"]),
        ('"redis://127.0.0.1:6379/0"', '"redis://h:0"', ["redis.url: the port must be from 1 to 65535"]),
        ('"redis://127.0.0.1:6379/0"', '"redis://h:x"', ["redis.url: the port must be from 1 to 65535"]),
        ('"redis://127.0.0.1:6379/0"', '"redis://h/x"', ["redis.url: the database (after the slash) must be a number"]),
        ('"redis://127.0.0.1:6379/0"', "redis://h/1, mode: cluster", ["redis.url: a cluster has no databases but 0"]),
        (
            '"redis://127.0.0.1:6379/0"',
            '"redis://a,b"',
            ["redis.url: several hosts need redis.mode sentinel or cluster"],
        ),
        ('"redis://127.0.0.1:6379/0"', '"unix://"', ["redis.url: names no socket (unix:///run/valkey.sock)"]),
        (
            '"redis://127.0.0.1:6379/0"',
            '"redis://u:hunter2@h"',
            ["redis.url: a password stands in the URL, which is logged; use redis.password_file or redis.password_env"],
        ),
        (
            '"redis://127.0.0.1:6379/0"',
            "redis://h, password_env: NONE",
            ["redis.password_env: the environment variable NONE is not set, or empty"],
        ),
        (
            "redis:",
            "budget: {wait_default_s: 31}\nredis:",
            ["budget.wait_default_s: 31 is more than budget.wait_max_s, 30"],
        ),
        (
            "redis:",
            "budget: {on_redis_down: share, max_replicas: 6}\nredis:",
            ["budget.max_replicas: 6 replicas can't share 5 calls (budget.calls) when Redis is down"],
        ),
        ("redis:", "query: {since: P1D, until: P1D}\nredis:", ["query.since: is not before query.until"]),
        (
            "redis:",
            "query: {range_max_days: 59}\nredis:",
            ["query.range_max_days: query.since to query.until is longer than 59 days"],
        ),
        (
            "redis:",
            "upstream: {connect_timeout_s: 9}\nredis:",
            ["upstream.connect_timeout_s: 9 is more than upstream.call_timeout_s, 8, for the whole call"],
        ),
        (
            "redis:",
            "server: {trusted_proxies: [10.0.0.0/8, 10.0.0.1/8, '::1/129']}\nredis:",
            [
                "server.trusted_proxies[1]: expected an IP network whose host bits are 0, such as 10.0.0.0/8",
                "server.trusted_proxies[2]: expected an IP network whose host bits are 0, such as 10.0.0.0/8",
            ],
        ),
        (
            "redis:",
            "upstream: {proxy_url: 'socks5://proxy:1080', ca_file: none.pem}\nredis:",
            [
                "upstream.proxy_url: expected http://HOST:PORT",
                "upstream.ca_file: the file none.pem can't be read: No such file or directory",
            ],
        ),
        (
            "redis:",
            "upstream: {proxy_url: 'http://me:secret@proxy:3128', ca_file: /dev/null}\nredis:",
            [
                (
                    "upstream.proxy_url: holds a user or a password, which would be logged; use proxy_username and "
                    "proxy_password_file"
                ),
                "upstream.ca_file: the file /dev/null holds no certificate (PEM)",
            ],
        ),
        (
            "redis:",
            "upstream: {unknown_task_codes: [90104, 60007, 90106, 90105]}\nredis:",
            [
                "upstream.unknown_task_codes: 60007 means something else for every call (throttled)",
                "upstream.unknown_task_codes: 90105 means something else for every call (transient)",
            ],
        ),
        (
            "redis:",
            "upstream: {proxy_username: me, proxy_password_env: NOT_SET}\nredis:",
            [
                "upstream.proxy_username: goes with a proxy_url alone",
                "upstream.proxy_password_env: the environment variable NOT_SET is not set, or empty",
            ],
        ),
        (
            "redis:",
            "upstream: {proxy_url: 'http://proxy:3128', proxy_username: me}\nredis:",
            ["upstream: proxy_username and one of proxy_password_file and proxy_password_env go together"],
        ),
        (
            "redis:",
            "upstream: {proxy_url: 'http://proxy:3128', proxy_username: 'me:x', proxy_password_file: none}\nredis:",
            [
                "upstream.proxy_username: expected a user name in ASCII without colon and space",
            ],
        ),
        (
            "redis:",
            "telemetry: {metrics_port: 8000}\nredis:",
            ["telemetry.metrics_port: the same as server.port: metrics have a port of their own"],
        ),
    ],
)
def test_rules_between_settings(folder: Folder, old: str, new: str, faults: list[str]) -> None:
    """Each broken rule produces its own text and no other fault."""
    assert old in GOOD
    assert folder.faults(GOOD.replace(old, new, 1)) == faults


@pytest.mark.parametrize(
    ("old", "new", "warnings"),
    [
        (
            "region: frankfurt",
            "region: tokyo",
            ["apps.my-news.eu.region: the SDKAppID's range belongs to the region frankfurt, not to tokyo"],
        ),
        (
            "region: frankfurt",
            "base_url: 'http://upstream.example'",
            ["apps.my-news.eu.base_url: http sends signatures in the clear; use https"],
        ),
        ("region: frankfurt", "base_url: 'http://127.0.0.1:1'", []),
        (
            "sdkappid: 40000001",
            "sdkappid: 1400000001",
            [
                "apps.my-news.eu.region: the SDKAppID's range belongs to the region china, not to frankfurt",
                "apps.my-news.eu.sdkappid: the same as apps.shop: the upstream counts their calls together, we do not",
            ],
        ),
        (
            "redis:",
            "cache: {block_size: 20}\nredis:",
            ["cache.block_size: callers get at most 20 tasks at a time, the size of a block"],
        ),
        (
            "redis:",
            "budget: {turn_lease_s: 0.25}\nredis:",
            ["budget.turn_lease_s: 0.25 is not more than redis.timeout_s: turns lapse when Redis answers late"],
        ),
        (
            "redis:",
            "server: {drain_s: 20}\nredis:",
            ["server.drain_s: 20 is less than budget.wait_max_s: who waits longest is refused in a restart"],
        ),
        (
            "redis:",
            "auth: none\nserver: {host: '::1'}\nredis:",
            ["auth: none: everybody who reaches ::1 may read every app, and callers count for nothing"],
        ),
        (
            "redis:",
            "service_accounts: {issuer: a, audience: b, jwks_url: 'http://x'}\nredis:",
            ["service_accounts.jwks_url: http lets whoever is on the way sign tokens; use https"],
        ),
        (
            f'keys: ["{KEY_A}"], ',
            "",
            ["callers.reports.keys: is empty, and so is service_accounts: this caller can read nothing"],
        ),
        (
            f'"{KEY_A}"',
            f'{{sha256: "{KEY_A}", until: "2020-01-01"}}, {{sha256: "{KEY_B}", until: "9999-01-01"}}',
            ["callers.reports.keys[0].until: 2020-01-01: this key has ended, nobody can call with it; remove it"],
        ),
        ("apps: [shop]", "apps: []", ["callers.reports.apps: is empty: this caller can read nothing"]),
    ],
)
def test_advice(folder: Folder, old: str, new: str, warnings: list[str]) -> None:
    """Probably unintended settings cause a warning, and the configuration is used as it is."""
    assert old in GOOD
    assert folder.warnings(GOOD.replace(old, new, 1)) == warnings


def test_no_text_repeats_a_secret(folder: Folder) -> None:
    """Whatever was put in the wrong place, no fault repeats it."""
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


def test_files_for_tls_to_redis_are_checked(folder: Folder) -> None:
    """They count from the configuration's folder, need rediss://, contain PEM, and certificate and key go together."""
    tls = GOOD.replace('"redis://127.0.0.1:6379/0"', '"rediss://cache", ca_file: ca.pem, cert_file: c.pem')
    (folder.path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (folder.path / "c.pem").write_text("nothing")
    assert folder.faults(tls) == [
        "redis: cert_file and key_file go together",
        "redis.cert_file: the file c.pem holds no PEM",
    ]
    assert folder.faults(tls.replace("rediss:", "redis:").replace(", cert_file: c.pem", "")) == [
        "redis.ca_file: needs TLS: a redis.url that begins with rediss://"
    ]
    assert folder.faults(tls.replace("cert_file: c.pem", "key_file: k.pem")) == [
        "redis: cert_file and key_file go together",
        "redis.key_file: the file k.pem can't be read: No such file or directory",
    ]
    good = folder.load(tls.replace(", cert_file: c.pem", ""))
    assert good.settings.redis.ca_file == str(folder.path / "ca.pem")


def test_words_that_yaml_once_read_otherwise_stay_texts(folder: Folder) -> None:
    """Dates, yes, no, 12:30 and a SHA-256 of digits alone are texts, as a person reads them."""
    text = GOOD.replace(f'"{KEY_A}"', "1" * 64) + "query: {since: 2026-01-01, until: 2026-02-01}\n"
    text = text.replace("  reports:", "  no:").replace("  shop:", "  123:").replace("[shop]", "['123']")
    settings = folder.load(text).settings
    assert settings.query.since == "2026-01-01"
    assert settings.callers["no"].keys == ("1" * 64,)
    assert "123" in settings.apps


@pytest.mark.parametrize("value", ["http://u:hunter2@h", "grpc://h", "h:4318", "http://h?key=hunter2"])
def test_an_otlp_endpoint_is_a_plain_url(folder: Folder, value: str) -> None:
    """An endpoint with credentials, a query or another scheme is refused without being repeated."""
    text = GOOD.replace("redis:", f'telemetry: {{otlp_endpoint: "{value}"}}\nredis:', 1)
    (fault,) = folder.faults(text)
    assert fault.startswith("telemetry.otlp_endpoint: expected")
    assert value not in fault


def test_keys_with_and_without_an_end(folder: Folder) -> None:
    """A key is a text, or a mapping with its end."""
    text = GOOD.replace(f'["{KEY_A}"]', f'["{KEY_A}", {{sha256: "{KEY_B}", until: 2027-01-01}}]')
    assert folder.load(text).settings.callers["reports"].keys == (KEY_A, KeySettings(sha256=KEY_B, until="2027-01-01"))


def test_what_may_be_left_out_can_be_set_from_the_environment(folder: Folder) -> None:
    """A section that is null by default takes overrides like any other."""
    prefix = "TASKGATE__SERVICE_ACCOUNTS__"
    environ = ENVIRON | {f"{prefix}ISSUER": "a", f"{prefix}AUDIENCE": "b", f"{prefix}JWKS_URL": "https://x"}
    loaded = folder.load(GOOD, environ | {f"{prefix}UNKNOWN__APPS": '["shop"]', "TASKGATE__AUTH": "none"})
    tokens = loaded.settings.service_accounts
    assert tokens is not None
    assert tokens.unknown is not None
    assert (tokens.issuer, tokens.unknown.apps, loaded.settings.auth) == ("a", ("shop",), "none")


def test_a_file_behind_a_link_is_named_by_the_link(folder: Folder) -> None:
    """Files beside a configuration mounted by links are looked up beside the link, which outlives its target."""
    (folder.path / "..one").mkdir()
    text = GOOD.replace("secret_env: SHOP_SECRET", "secret_file: shop.secret", 1)
    for name, content in (("taskgate.yaml", text), ("shop.secret", "0123")):
        (folder.path / "..one" / name).write_text(content)
        (folder.path / name).symlink_to(f"..one/{name}")
    settings = load(folder.path / "taskgate.yaml", ENVIRON).settings
    assert settings.apps["shop"].secret_file == str(folder.path / "shop.secret")
