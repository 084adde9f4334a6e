"""Wrong values are rejected before anything is installed, with a message that names the value. For those that the
gateway itself would reject, see test_chart_rules.py.
"""

import json

import helm_python
import pytest

from tests.chart.rendering import CHART, GONE, Values, merged, render
from tools import chart as generate

CERT: Values = {"name": "redis-client", "cert": "tls.crt", "key": "tls.key"}
SHOP: Values = {"name": "taskgate-apps", "key": "shop"}

REFUSED: dict[str, tuple[Values, str]] = {
    "a misspelt value": ({"replicas": 3}, "additional properties 'replicas' not allowed"),
    "a misspelt setting": ({"config": {"cache": {"fresh": 1}}}, "at '/config/cache': additional properties 'fresh'"),
    "an unknown section": ({"config": {"buget": {}}}, "at '/config': additional properties 'buget' not allowed"),
    "a number as a string": ({"replicaCount": "3"}, "at '/replicaCount': got string, want null or integer"),
    "no replicas": ({"replicaCount": 0}, "at '/replicaCount': minimum: got 0, want 1"),
    "a port out of range": ({"config": {"server": {"port": 70000}}}, "at '/config/server/port': maximum: got 70"),
    "a setting out of bounds": ({"config": {"budget": {"window_s": 0}}}, "at '/config/budget/window_s'"),
    "an incomplete app": ({"config": {"apps": {"shop": {"admin": GONE}}}}, "missing property 'admin'"),
    "a name with a space": ({"config": {"apps": {"my shop": {}}}}, "'my shop' does not match pattern"),
    "a key in plain text": ({"config": {"callers": {"reports": {"keys": ["tg_key"]}}}}, "/callers/reports/keys/0"),
    "an inline secret": ({"config": {"apps": {"shop": {"secret": "x"}}}}, "additional properties 'secret' not allow"),
    "an inline password": ({"config": {"redis": {"password": "x"}}}, "additional properties 'password' not allowed"),
    "half a reference": ({"secrets": {"apps": {"shop": {"key": GONE}}}}, "/secrets/apps/shop': missing property"),
    "half a password": ({"secrets": {"redisPassword": {"name": "redis"}}}, "at '/secrets/redisPassword'"),
    "an empty peer, which means everyone": ({"networkPolicy": {"ingress": [{}]}}, "at '/networkPolicy/ingress/0'"),
    "no port, which means every port": ({"networkPolicy": {"dns": {"ports": []}}}, "at '/networkPolicy/dns/ports'"),
    "a runbook with an anchor": ({"prometheusRule": {"runbookUrl": "https://x/y#z"}}, "/prometheusRule/runbookUrl"),
    "no app": ({"config": {"apps": {"shop": GONE}}, "secrets": {"apps": {"shop": GONE}}}, "config.apps: name at least"),
    "no secret": ({"secrets": {"apps": {"shop": GONE}}}, "secrets.apps.shop: missing; name the Secret"),
    "a secret for no app": (
        {"secrets": {"apps": {"shp": SHOP}}},
        "secrets.apps.shp: config.apps has no app of this na",
    ),
    "two secrets": ({"config": {"apps": {"shop": {"secret_env": "X"}}}}, "config.apps.shop: has a secret_file or"),
    "no redis": ({"config": {"redis": {"url": GONE}}}, "config.redis.url: missing; set it to the address of Redis"),
    "two redis": ({"valkey": {"enabled": True}}, "config.redis.url: valkey.enabled sets it"),
    "two passwords": (
        {"config": {"redis": {"password_env": "X"}}, "secrets": {"redisPassword": SHOP}},
        "config.redis: has a password_file or password_env, and secrets.redisPassword",
    ),
    "a Valkey to try with a password": (
        {"valkey": {"enabled": True}, "config": {"redis": {"url": GONE}}, "secrets": {"redisPassword": SHOP}},
        "that Valkey has no password",
    ),
    "fewer shares than replicas": (
        {"config": {"budget": {"max_replicas": 1}}},
        "max_replicas: 1, but replicaCount allows 2",
    ),
    "fewer shares than scaled replicas": (
        {"config": {"budget": {"max_replicas": 4}}, "autoscaling": {"enabled": True}},
        "max_replicas: 4, but autoscaling.maxReplicas allows 5",
    ),
    "an unknown number of shares": (
        {"config": {"budget": {"on_redis_down": "share"}}, "replicaCount": None},
        "config.budget.max_replicas: missing; replicaCount is null",
    ),
    "a monitor without metrics": (
        {"serviceMonitor": {"enabled": True}, "config": {"telemetry": {"metrics_port": None}}},
        "serviceMonitor and prometheusRule need metrics",
    ),
    "alerts without a runbook": ({"prometheusRule": {"enabled": True}}, "prometheusRule.runbookUrl: missing"),
    "fewest above most": (
        {"autoscaling": {"enabled": True, "minReplicas": 9}},
        "autoscaling.minReplicas: more than autoscaling.maxReplicas",
    ),
    "scaling on an unknown metric": ({"autoscaling": {"by": "memory"}}, "at '/autoscaling/by': value must be one of"),
    "scaling without a target": ({"autoscaling": {"target": "70%"}}, "at '/autoscaling/target'"),
    "two client certificates": (
        {"config": {"redis": {"cert_file": "/x"}}, "secrets": {"redisClientCert": CERT}},
        "config.redis: has a cert_file or key_file, and secrets.redisClientCert is set; remove one of them",
    ),
    "half a client certificate": ({"secrets": {"redisClientCert": {"name": "x"}}}, "at '/secrets/redisClientCert'"),
    "a client certificate without TLS": (
        {"secrets": {"redisClientCert": CERT}},
        "config.redis.url: secrets.redisClientCert and trustedCAs.redis need TLS",
    ),
    "two CAs": (
        {"config": {"upstream": {"ca_file": "/x"}}, "trustedCAs": {"upstream": {"secret": "ca", "key": "x"}}},
        "config.upstream: has a ca_file, and trustedCAs.upstream is set; remove one of them",
    ),
    "a CA without a source": ({"trustedCAs": {"redis": {"key": "ca.crt"}}}, "at '/trustedCAs/redis'"),
    "a CA from two places": (
        {"trustedCAs": {"redis": {"key": "ca.crt", "secret": "a", "configMap": "b"}}},
        "at '/trustedCAs/redis'",
    ),
    "a proxy's user without a password": (
        {"config": {"upstream": {"proxy_url": "http://proxy:3128", "proxy_username": "me"}}},
        "config.upstream.proxy_username: must be set together with secrets.proxyPassword",
    ),
    "a proxy's password without a user": (
        {"secrets": {"proxyPassword": SHOP}},
        "config.upstream.proxy_username: must be set together with secrets.proxyPassword",
    ),
    "two passwords of a proxy": (
        {
            "config": {
                "upstream": {"proxy_url": "http://p:1", "proxy_username": "me", "proxy_password_env": "X"},
            },
            "secrets": {"proxyPassword": SHOP},
        },
        "config.upstream: has a proxy_password_file or proxy_password_env, and secrets.proxyPassword is set",
    ),
    "a rollout that can't begin": ({"strategy": {"maxSurge": 0}}, "maxSurge and maxUnavailable are both 0"),
    "a rollout that can't begin, in per cent": (
        {"strategy": {"maxSurge": "0%"}},
        "maxSurge and maxUnavailable are both 0",
    ),
    "more than all": ({"strategy": {"maxUnavailable": "110%"}}, "at '/strategy/maxUnavailable'"),
    "a disruption budget that blocks every drain": (
        {"podDisruptionBudget": {"minAvailable": 2}},
        "podDisruptionBudget.minAvailable: 2 of 2 replicas",
    ),
    "a host that only the pod can reach": (
        {"config": {"server": {"host": "127.0.0.1"}}},
        "config.server.host: 127.0.0.1 is reachable only from inside the pod",
    ),
    "a metrics host that only the pod can reach": (
        {"config": {"telemetry": {"metrics_host": "::1"}}},
        "config.telemetry.metrics_host: ::1 is reachable",
    ),
    "an upper-case name": ({"fullnameOverride": "Taskgate"}, "at '/fullnameOverride'"),
    "a truncated name": ({"nameOverride": "x" * 51}, "at '/nameOverride'"),
    "an upper-case Secret": ({"secrets": {"apps": {"shop": {"name": "Apps"}}}}, "at '/secrets/apps/shop/name'"),
    "an upper-case account": ({"serviceAccount": {"name": "Gate"}}, "at '/serviceAccount/name'"),
    "an upper-case image": ({"image": {"repository": "registry.example/Taskgate"}}, "at '/image/repository'"),
    "an image with its tag": ({"image": {"repository": "taskgate:1"}}, "at '/image/repository'"),
    "an upper-case host": (
        {"ingress": {"enabled": True, "hosts": ["Taskgate.example"]}},
        "at '/ingress/hosts/0'",
    ),
    "a label with a space": ({"podLabels": {"team": "push and pull"}}, "at '/podLabels/team'"),
    "a label without a name": ({"commonLabels": {"example.org/": "a"}}, "at '/commonLabels'"),
    "an annotation with a space": ({"podAnnotations": {"a b": "c"}}, "at '/podAnnotations'"),
    "a variable with a space": ({"env": [{"name": "A B", "value": "c"}]}, "at '/env/0/name'"),
    "no quantity": ({"resources": {"requests": {"memory": "192 MB"}}}, "at '/resources/requests/memory'"),
    "a node port for an internal Service": (
        {"service": {"nodePort": 30080}},
        "service.nodePort: needs service.type NodePort",
    ),
    "a traffic policy for an internal Service": (
        {"service": {"externalTrafficPolicy": "Local"}},
        "service.externalTrafficPolicy: needs service.type NodePort or LoadBalancer",
    ),
    "too little grace": ({"terminationGracePeriodSeconds": 49}, "terminationGracePeriodSeconds: at least 50"),
    "an Ingress without hosts": ({"ingress": {"enabled": True}}, "ingress.hosts: missing"),
    "a route without a Gateway": ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs: missing"),
}


@pytest.mark.parametrize(("patch", "text"), REFUSED.values(), ids=REFUSED)
def test_wrong_values_are_refused_by_name(patch: Values, text: str) -> None:
    """Each mistake is rejected with a text that names its location."""
    with pytest.raises(helm_python.HelmError) as refused:
        render(patch)
    assert text in str(refused.value)


@pytest.mark.parametrize(("release", "name"), [("a.b-taskgate", "a-b-taskgate"), ("gate", "gate-taskgate")])
def test_any_release_name_yields_valid_service_names(release: str, name: str) -> None:
    """Helm allows dots in a release's name, Kubernetes none in a Service's."""
    assert render(release=release).one("Service", name)


def test_a_release_name_with_a_leading_digit_is_rejected_with_advice() -> None:
    """A Service's name can't begin with a digit; fullnameOverride helps."""
    with pytest.raises(helm_python.HelmError, match=r"fullnameOverride: missing; the release is called 1st"):
        render(release="1st")
    assert render({"fullnameOverride": "first"}, release="1st").one("Service", "first")


def test_without_values_the_apps_are_requested_first() -> None:
    """Without values the first thing that is missing is the apps."""
    with (
        helm_python.Chart.load(CHART) as chart,
        pytest.raises(helm_python.HelmError, match=r"config\.apps: name at le"),
    ):
        chart.render({})


def test_the_schema_follows_the_settings() -> None:
    """values.schema.json and files/settings.json are what `make chart` would write."""
    assert json.loads(generate.SCHEMA.read_text()) == generate.schema()
    assert json.loads(generate.SETTINGS.read_text()) == generate.settings()


def test_the_table_follows_the_values() -> None:
    """helm/README.md is what `make chart` would write."""
    assert generate.README.read_text() == generate.readme()


def test_the_chart_has_the_version_of_the_gateway() -> None:
    """`make chart` has been run since the last release was named."""
    assert generate.METADATA.read_text() == generate.metadata()


def test_every_value_is_described() -> None:
    """No leaf of values.yaml is without a comment."""
    with helm_python.Chart.load(CHART) as chart:
        values = chart.values
    described = generate.described_values()
    leaves = generate.leaves(values, set(described))
    assert [path for path in leaves if path not in described] == []
    assert [path for path, (comment, _) in described.items() if not comment.endswith(".")] == []


def test_the_schema_has_every_value_and_rejects_others() -> None:
    """Objects with properties accept no others, and every default is valid."""

    def open_objects(node: object, path: str) -> list[str]:
        if isinstance(node, list):
            return [found for item in node for found in open_objects(item, path)]
        if not isinstance(node, dict):
            return []
        inside = [found for key, inner in node.items() for found in open_objects(inner, f"{path}/{key}")]
        return inside + ([path] if "properties" in node and node.get("additionalProperties") is not False else [])

    schema = json.loads(generate.SCHEMA.read_text())
    assert [path for path in open_objects(schema, "") if path != "/properties"] == []
    with helm_python.Chart.load(CHART) as chart:
        assert set(chart.values) <= set(schema["properties"])
        chart.validate_schema(merged())
