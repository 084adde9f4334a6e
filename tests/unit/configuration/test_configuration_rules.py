"""Rules between settings, and the exact text when one is broken."""

import pytest

from service.upstream.regions import REGION_NAMES
from tests.unit.configuration.folder import GOOD, KEY_A, KEY_B, Folder


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        (
            "admin: administrator, secret_env: SHOP_SECRET}",
            "admin: administrator}",
            ["apps.shop: set one of secret_file and secret_env"],
        ),
        (
            "secret_env: SHOP_SECRET}",
            "secret_env: SHOP_SECRET, secret_file: x}",
            ["apps.shop: secret_file and secret_env are both set; remove one of them"],
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
                "apps.my-news.eu.region: no such region; known regions: " + ", ".join(REGION_NAMES),
            ],
        ),
        (
            "region: frankfurt",
            "region: frankfurt, base_url: 'https://x'",
            ["apps.my-news.eu: region and base_url are both set; remove one of them"],
        ),
        (
            "region: frankfurt",
            "base_url: 'https://x/?a=1'",
            ["apps.my-news.eu.base_url: a base URL must not contain a query or a fragment"],
        ),
        (
            "region: frankfurt",
            "base_url: x",
            ["apps.my-news.eu.base_url: a base URL must start with https:// or http://"],
        ),
        ("apps: [shop]", "apps: [shop, y]", ["callers.reports.apps[1]: no such app; known apps: shop, my-news.eu"]),
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
            ["service_accounts: set one of jwks_url and jwks_file"],
        ),
        (
            "redis:",
            "service_accounts: {issuer: a, audience: b, jwks_url: 'ftp://x', jwks_file: none}\nredis:",
            [
                "service_accounts: jwks_url and jwks_file are both set; remove one of them",
                "service_accounts.jwks_file: the file none can't be read: No such file or directory",
            ],
        ),
        (
            "redis:",
            "service_accounts: {issuer: a, audience: b, jwks_url: 'https://u:p@x', unknown: {apps: [y]}}\nredis:",
            [
                "service_accounts.jwks_url: contains a user or a password; name a token_file instead",
                "service_accounts.unknown.apps[0]: no such app; known apps: shop, my-news.eu",
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
            ["auth: none is allowed on loopback only; server.host must be 127.0.0.1, ::1 or localhost"],
        ),
        ("redis:", "auth: nobody\nredis:", ["auth: expected one of callers, none"]),
        ('"redis://127.0.0.1:6379/0"', "http://h", ["redis.url: expected redis://, rediss:// or unix://"]),
        ('"redis://127.0.0.1:6379/0"', '"redis://:1"', ["redis.url: names no host"]),
        ('"redis://127.0.0.1:6379/0"', '"redis://h:0"', ["redis.url: the port must be from 1 to 65535"]),
        ('"redis://127.0.0.1:6379/0"', '"redis://h:x"', ["redis.url: the port must be from 1 to 65535"]),
        ('"redis://127.0.0.1:6379/0"', '"redis://h/x"', ["redis.url: the database (after the slash) must be a number"]),
        ('"redis://127.0.0.1:6379/0"', "redis://h/1, mode: cluster", ["redis.url: a cluster has only database 0"]),
        (
            '"redis://127.0.0.1:6379/0"',
            '"redis://a,b"',
            ["redis.url: several hosts need redis.mode sentinel or cluster"],
        ),
        (
            '"redis://127.0.0.1:6379/0"',
            '"unix://"',
            ["redis.url: lacks the path of a socket (unix:///run/valkey.sock)"],
        ),
        (
            '"redis://127.0.0.1:6379/0"',
            '"redis://u:hunter2@h"',
            ["redis.url: the URL contains a password and is logged; use redis.password_file or redis.password_env"],
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
            ["budget.max_replicas: 6 replicas can't share 5 calls (budget.calls) while Redis is away"],
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
                    "upstream.proxy_url: contains a user or a password, which would be logged; use proxy_username and "
                    "proxy_password_file"
                ),
                "upstream.ca_file: the file /dev/null has no certificate (PEM)",
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
                "upstream.proxy_username: is only valid with proxy_url",
                "upstream.proxy_password_env: the environment variable NOT_SET is not set, or empty",
            ],
        ),
        (
            "redis:",
            "upstream: {proxy_url: 'http://proxy:3128', proxy_username: me}\nredis:",
            ["upstream: proxy_username and one of proxy_password_file and proxy_password_env must be set together"],
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
            ["telemetry.metrics_port: the same as server.port: metrics need a separate port"],
        ),
    ],
)
def test_each_broken_rule_has_its_own_text(folder: Folder, old: str, new: str, faults: list[str]) -> None:
    """Each broken rule produces its own text and no other fault."""
    assert old in GOOD
    assert folder.faults(GOOD.replace(old, new, 1)) == faults


def test_files_for_tls_to_redis_are_checked(folder: Folder) -> None:
    """They count from the configuration's folder, need rediss://, contain PEM, and certificate and key go together."""
    tls = GOOD.replace('"redis://127.0.0.1:6379/0"', '"rediss://cache", ca_file: ca.pem, cert_file: c.pem')
    (folder.path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (folder.path / "c.pem").write_text("nothing")
    assert folder.faults(tls) == [
        "redis: cert_file and key_file must be set together",
        "redis.cert_file: the file c.pem is not PEM",
    ]
    assert folder.faults(tls.replace("rediss:", "redis:").replace(", cert_file: c.pem", "")) == [
        "redis.ca_file: needs TLS: a redis.url that begins with rediss://"
    ]
    assert folder.faults(tls.replace("cert_file: c.pem", "key_file: k.pem")) == [
        "redis: cert_file and key_file must be set together",
        "redis.key_file: the file k.pem can't be read: No such file or directory",
    ]
    good = folder.load(tls.replace(", cert_file: c.pem", ""))
    assert good.settings.redis.ca_file == str(folder.path / "ca.pem")


@pytest.mark.parametrize("value", ["http://u:hunter2@h", "grpc://h", "h:4318", "http://h?key=hunter2"])
def test_an_otlp_endpoint_is_a_plain_url(folder: Folder, value: str) -> None:
    """An endpoint with credentials, a query or another scheme is refused without being repeated."""
    text = GOOD.replace("redis:", f'telemetry: {{otlp_endpoint: "{value}"}}\nredis:', 1)
    (fault,) = folder.faults(text)
    assert fault.startswith("telemetry.otlp_endpoint: expected")
    assert value not in fault
