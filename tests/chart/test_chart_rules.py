"""Configurations that the gateway would reject at its start are rejected by the chart before anything is installed, in
the same words.
"""

from collections.abc import Sequence
from pathlib import Path

import helm_python
import pytest
import yaml

from service.configuration import ConfigurationError, load
from tests.chart.matrix import MATRIX
from tests.chart.rendering import GONE, KEY, LEAST, Values, merged, render

TOKENS: Values = {"issuer": "https://issuer", "audience": "taskgate", "jwks_url": "https://issuer/jwks"}

REFUSED: dict[str, Values] = {
    "an unknown app": {"callers": {"reports": {"apps": ["shp"]}}},
    "unknown apps, also for unnamed accounts": {
        "callers": {"reports": {"apps": ["shop", "a"]}},
        "service_accounts": TOKENS | {"unknown": {"apps": ["b"]}},
    },
    "one key for two callers": {"callers": {"batch": {"keys": ["1" * 64, KEY], "apps": ["shop"]}}},
    "one key twice": {"callers": {"reports": {"keys": [{"sha256": KEY, "until": "2099-01-01"}, KEY]}}},
    "one account for two callers": {
        "callers": {name: {"service_accounts": ["ns/a"], "apps": ["shop"]} for name in ("a", "b")},
        "service_accounts": TOKENS,
    },
    "accounts without an issuer": {"callers": {"reports": {"service_accounts": ["ns/a"]}}},
    "an issuer without keys": {"service_accounts": TOKENS | {"jwks_url": GONE, "ca_file": "a", "token_file": "b"}},
    "an issuer with two kinds of keys": {"service_accounts": TOKENS | {"jwks_file": "keys"}},
    "an issuer without a URL": {"service_accounts": TOKENS | {"jwks_url": "issuer"}},
    "an issuer with a password": {"service_accounts": TOKENS | {"jwks_url": "https://a:b@issuer/jwks"}},
    "an unknown region": {"apps": {"shop": {"region": "mars"}}},
    "a region and a base URL": {"apps": {"shop": {"region": "china", "base_url": "https://upstream"}}},
    "a base URL without a scheme": {"apps": {"shop": {"base_url": "upstream"}}},
    "a base URL with a password": {"apps": {"shop": {"base_url": "https://a:b@upstream"}}},
    "a base URL with a query": {"apps": {"shop": {"base_url": "https://upstream/?a=b"}}},
    "no authentication on every address": {"auth": "none"},
    "a password in the URL": {"redis": {"url": "redis://:hunter2@redis"}},
    "a password in the URL, with a user": {"redis": {"url": "rediss://user:hunter2@redis:6379/0"}},
    "a password behind the URL": {"redis": {"url": "redis://redis/?db=0&password=hunter2"}},
    "several hosts without a mode": {"redis": {"url": "redis://a:6379,b:6379"}},
    "an invalid host": {"redis": {"url": "redis://:6379/0"}},
    "a port out of range": {"redis": {"url": "redis://redis:70000/0"}},
    "an invalid port": {"redis": {"url": "redis://a:6379,b:port", "mode": "sentinel"}},
    "an unknown scheme": {"redis": {"url": "http://redis"}},
    "an invalid database": {"redis": {"url": "redis://redis/zero"}},
    "a database of a cluster": {"redis": {"url": "redis://a,b/1", "mode": "cluster"}},
    "a socket of a cluster": {"redis": {"url": "unix:///run/valkey.sock", "mode": "cluster"}},
    "two passwords": {"redis": {"password_env": "HOME", "password_file": "x"}},
    "waits that contradict": {"budget": {"wait_default_s": 45.5, "wait_max_s": 40}},
    "a wait that contradicts a default": {"budget": {"wait_max_s": 9}},
    "a timeout within a shorter one": {"upstream": {"connect_timeout_s": 9, "read_timeout_s": 8.5}},
    "more replicas than calls": {"budget": {"on_redis_down": "share", "calls": 1}},
    "more replicas than an app's calls": {
        "budget": {"on_redis_down": "share"},
        "apps": {"shop": {"calls": 1}},
    },
    "a proxy with a password": {"upstream": {"proxy_url": "http://a:hunter2@proxy:3128"}},
    "a proxy over TLS": {"upstream": {"proxy_url": "https://proxy:3128"}},
    "a user without a proxy": {"upstream": {"proxy_username": "me", "proxy_password_env": "HOME"}},
    "one port for two": {"telemetry": {"metrics_port": 8000}},
    "many at once": {
        "apps": {"shop": {"region": "mars"}},
        "callers": {"reports": {"apps": ["a"]}},
        "redis": {"url": "redis://a,b"},
    },
}


def _said_by_the_gateway(config: Values, folder: Path) -> Sequence[str]:
    file = folder / "taskgate.yaml"
    (folder / "secret").write_text("0123456789abcdef" * 4)
    app = config["apps"]["shop"] | {"secret_file": "secret"}
    budget = config.get("budget", {}) | {"max_replicas": 2}  # derived by the chart from its two replicas
    server = {"host": "0.0.0.0", "port": 8000} | config.get("server", {})  # noqa: S104 - as in a pod
    file.write_text(yaml.safe_dump(config | {"apps": {"shop": app}, "budget": budget, "server": server}))
    with pytest.raises(ConfigurationError) as refused:
        load(file, {"HOME": "x"})
    return [str(fault) for fault in refused.value.faults if "can't be read" not in fault.text]


@pytest.mark.parametrize("config", REFUSED.values(), ids=REFUSED)
def test_the_chart_reports_faults_in_the_words_of_the_gateway(config: Values, tmp_path: Path) -> None:
    """All faults of a configuration are reported at once, each in the gateway's words, and no secret is repeated."""
    with pytest.raises(helm_python.HelmError) as refused:
        render({"config": config})
    lines = str(refused.value).splitlines()[1:]
    said = [f"config.{fault}" for fault in _said_by_the_gateway(merged(config, onto=LEAST["config"]), tmp_path)]
    assert sorted(lines) == sorted(said)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "redis",
    [
        {"url": "redis://user@redis"},
        {"url": "rediss://[fd00::1]:6390/15"},
        {"url": "redis://[fd00::1]"},
        {"url": "unix:///run/valkey.sock"},
        {"url": "redis://a:7000,b:7001/0", "mode": "cluster"},
        {"url": "redis://a,b:26380/3", "mode": "sentinel"},
    ],
)
def test_valid_addresses_are_accepted(redis: Values) -> None:
    """The chart accepts every address that the gateway accepts."""
    assert render({"config": {"redis": redis}}).objects


def test_the_check_before_an_upgrade_matches_the_pods() -> None:
    """Job and pods have the same configuration, image, environment, mounts and Secrets; the Job's may be missing."""
    for patch in MATRIX.values():
        rendered = render(patch)
        job = rendered.one("Job", "tg-taskgate-check")["spec"]["template"]["spec"]
        checked = rendered.one("ConfigMap", "tg-taskgate-check")
        assert checked["data"] == rendered.one("ConfigMap")["data"]
        (container,) = job["containers"]
        for key in ("image", "env", "volumeMounts", "securityContext"):
            assert container[key] == rendered.container[key]
        assert container["args"] == ["check", "/etc/taskgate/taskgate.yaml"]
        assert [volume["name"] for volume in job["volumes"]] == [v["name"] for v in rendered.pod["spec"]["volumes"]]
        assert job["volumes"][0]["configMap"]["name"] == "tg-taskgate-check"
        weights = [
            int(made["metadata"]["annotations"]["helm.sh/hook-weight"])
            for made in (checked, rendered.one("Job", "tg-taskgate-check"))
        ]
        assert weights == sorted(weights), "the ConfigMap is there before the Job"
        sources = [
            s["secret"] for v in job["volumes"] for s in v.get("projected", {}).get("sources", ()) if "secret" in s
        ]
        assert all(source["optional"] for source in sources), "a missing Secret is reported, not waited for"


def test_the_check_can_be_disabled() -> None:
    """If Secrets come with the same release, they cannot be checked in advance."""
    assert "Job" not in render({"configCheck": {"enabled": False}}).kinds()
