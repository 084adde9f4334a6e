"""Warnings about settings that are probably unintended."""

import pytest

from tests.unit.configuration.folder import GOOD, KEY_A, KEY_B, Folder


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
            ["apps.my-news.eu.base_url: http sends signatures in plain text; use https"],
        ),
        ("region: frankfurt", "base_url: 'http://127.0.0.1:1'", []),
        (
            "sdkappid: 40000001",
            "sdkappid: 1400000001",
            [
                "apps.my-news.eu.region: the SDKAppID's range belongs to the region china, not to frankfurt",
                "apps.my-news.eu.sdkappid: the same as apps.shop: the upstream counts both as one, Taskgate does not",
            ],
        ),
        (
            "redis:",
            "cache: {block_size: 20}\nredis:",
            ["cache.block_size: pages have at most 20 tasks, the size of a block"],
        ),
        (
            "redis:",
            "budget: {turn_lease_s: 0.25}\nredis:",
            ["budget.turn_lease_s: 0.25 is not more than redis.timeout_s: turns lapse if Redis is slow"],
        ),
        (
            "redis:",
            "server: {drain_s: 20}\nredis:",
            ["server.drain_s: 20 is less than budget.wait_max_s: a restart rejects the longest waits"],
        ),
        (
            "redis:",
            "auth: none\nserver: {host: '::1'}\nredis:",
            ["auth: none: every client that reaches ::1 may read every app, and `callers` is ignored"],
        ),
        (
            "redis:",
            "service_accounts: {issuer: a, audience: b, jwks_url: 'http://x'}\nredis:",
            ["service_accounts.jwks_url: http lets anyone on the network path sign tokens; use https"],
        ),
        (
            f'keys: ["{KEY_A}"], ',
            "",
            ["callers.reports.keys: is empty, and so is service_accounts: this caller can read nothing"],
        ),
        (
            f'"{KEY_A}"',
            f'{{sha256: "{KEY_A}", until: "2020-01-01"}}, {{sha256: "{KEY_B}", until: "9999-01-01"}}',
            ["callers.reports.keys[0].until: 2020-01-01: this key has expired; remove it"],
        ),
        ("apps: [shop]", "apps: []", ["callers.reports.apps: is empty: this caller can read nothing"]),
    ],
)
def test_unintended_settings_cause_warnings(folder: Folder, old: str, new: str, warnings: list[str]) -> None:
    """Probably unintended settings cause a warning, and the configuration is used as it is."""
    assert old in GOOD
    assert folder.warnings(GOOD.replace(old, new, 1)) == warnings
