"""The chart's objects are valid and consistent with each other."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml

from service.server.lifecycle import CLOSE_S, KEEP_ALIVE_GRACE_S, REJECT_S
from tests.chart.matrix import MATRIX, MONITORED, TRYING
from tests.chart.rendering import CHART, GONE, Object, Values, merged, objects, render

OLDEST, NEWEST = "1.30", "1.37"
CUSTOM = json.loads((Path(__file__).parent / "custom.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def schemas_in_memory() -> Iterator[None]:
    """Read each of Kubernetes' schemas, which are large, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kubernetes_validate.utils, "schema_contents", cache(kubernetes_validate.utils.schema_contents))
        yield


def _check(made: Object) -> None:
    _check_text(json.dumps(made))


@cache
def _check_text(text: str) -> None:
    """Check an object; most sets of values make most objects alike."""
    made = json.loads(text)
    if made["kind"] in CUSTOM:
        jsonschema.validate(made, CUSTOM[made["kind"]])
        return
    for version in (OLDEST, NEWEST):
        kubernetes_validate.validate(made, version, strict=True)


@pytest.mark.parametrize("patch", MATRIX.values(), ids=MATRIX)
def test_every_object_is_valid_for_the_oldest_and_the_newest_kubernetes(patch: Values) -> None:
    """No set of values renders an object that Kubernetes would reject, or one with unknown fields."""
    rendered = render(patch)
    assert rendered.objects
    for made in rendered.objects:
        _check(made)


def test_the_oldest_tested_kubernetes_is_the_one_required() -> None:
    """Chart.yaml claims the oldest version that is checked here, and the newest is the newest known."""
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={OLDEST}.0-0"
    assert kubernetes_validate.latest_version().startswith(NEWEST)


@pytest.mark.parametrize("patch", MATRIX.values(), ids=MATRIX)
def test_lint_finds_nothing(patch: Values) -> None:
    """Helm's own lint has no warning and no error."""
    report = helm_python.lint(CHART, merged(patch), strict=True, kube_version=f"v{OLDEST}.0")
    assert report["errors"] == []
    assert [found for found in report["messages"] if found["severity"] > 1] == []


def test_the_example_of_a_caller_is_valid() -> None:
    """helm/examples holds objects that can be applied, and values of other charts."""
    for file in sorted(set((CHART / "examples").glob("*.yaml")) - set((CHART / "examples").glob("*-values.yaml"))):
        for made in objects(file.read_text()):
            _check(made)


@pytest.mark.parametrize("patch", MATRIX.values(), ids=MATRIX)
def test_every_selector_selects_the_pods_it_means(patch: Values) -> None:
    """Services, policies, disruption budget and spread select exactly the gateway's pods, or Valkey's."""
    rendered = render(patch)
    pods = {
        made["metadata"]["name"]: set(made["spec"]["template"]["metadata"]["labels"].items())
        for made in rendered.objects
        if made["kind"] == "Deployment"
    }
    for made in rendered.objects:
        spec = made.get("spec", {})
        match made["kind"]:
            case "Service":
                selector = spec["selector"]
            case "NetworkPolicy":
                selector = spec["podSelector"]["matchLabels"]
            case "PodDisruptionBudget" | "Deployment":
                selector = spec["selector"]["matchLabels"]
            case _:
                continue
        owner = "tg-taskgate-valkey" if made["metadata"]["name"].endswith("-valkey") else "tg-taskgate"
        selected = [name for name, labels in pods.items() if set(selector.items()) <= labels]
        assert selected == [owner], made["kind"]


def test_the_monitor_selects_the_service_of_metrics_alone() -> None:
    """ServiceMonitor's labels are on the Service with the port that it scrapes, and not on the other."""
    rendered = render(MONITORED)
    monitor = rendered.one("ServiceMonitor")["spec"]
    wanted = set(monitor["selector"]["matchLabels"].items())
    services = [made for made in rendered.objects if made["kind"] == "Service"]
    found = [made for made in services if wanted <= set(made["metadata"]["labels"].items())]
    assert [port["name"] for made in found for port in made["spec"]["ports"]] == [monitor["endpoints"][0]["port"]]


def test_ports_and_probes_agree_with_the_settings() -> None:
    """Each named port that anything refers to is a port of the container, and is where the gateway listens."""
    rendered = render({"config": {"server": {"port": 18000}}}, MONITORED)
    ports = {port["name"]: port["containerPort"] for port in rendered.container["ports"]}
    assert ports == {"http": 18000, "metrics": 9090}
    assert yaml.safe_load(rendered.config)["server"]["port"] == 18000
    contract = json.loads((CHART.parent / "openapi" / "openapi.json").read_text())
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert rendered.container[probe]["httpGet"] == {"path": path, "port": "metrics"}
        assert path in contract["paths"]
    for made in rendered.objects:
        for port in made["spec"]["ports"] if made["kind"] == "Service" else ():
            assert port["targetPort"] in ports
    policy = rendered.one("NetworkPolicy")["spec"]["ingress"]
    assert [rule["ports"][0]["port"] for rule in policy] == ["http", "metrics"]


@pytest.mark.parametrize(
    ("values", "grace_s"),
    [
        ({}, 5 + 35 + 10 + 30),
        ({"preStopSleepSeconds": 15, "config": {"server": {"drain_s": 60.5}}}, 15 + 61 + 10 + 30),
        ({"config": {"budget": {"wait_max_s": 300}}}, 5 + 35 + 10 + 300),
        ({"terminationGracePeriodSeconds": 50}, 50),
    ],
)
def test_the_grace_period_outlasts_sleep_patience_drain_and_closing(values: Values, grace_s: int) -> None:
    """A pod is not killed before its requests in progress may have ended."""
    assert KEEP_ALIVE_GRACE_S + REJECT_S + CLOSE_S <= 10, "the chart's helper counts ten seconds beside the drain"
    assert render(values).pod["spec"]["terminationGracePeriodSeconds"] == grace_s


def test_pods_have_no_needless_privileges() -> None:
    """Every container, Valkey's and the test's too, is non-root by number, without privileges, its root read-only."""
    for made in render(TRYING).objects:
        spec: Any = {"Deployment": lambda o: o["spec"]["template"]["spec"], "Pod": lambda o: o["spec"]}.get(
            made["kind"], lambda _: None
        )(made)
        if spec is None:
            continue
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_no_container_needs_a_shell() -> None:
    """No command is a shell or is passed to one."""
    for made in render(TRYING).objects:
        assert '"sh"' not in json.dumps(made)
        assert "/bin/" not in json.dumps(made)


def test_pods_restart_only_when_the_configuration_changes() -> None:
    """checksum/config changes with the files that the gateway reads."""

    def checksum(*patches: Values) -> str:
        found: str = render(*patches).pod["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum() == checksum({"service": {"port": 81}})
    assert checksum() != checksum({"config": {"cache": {"fresh_s": 16}}})
    assert checksum() == checksum({"replicaCount": 3}), "replicas are added without touching the others"
    shared: Values = {"config": {"budget": {"on_redis_down": "share"}}}
    assert checksum(shared) != checksum(shared, {"replicaCount": 3}), "each replica's share changes"


@pytest.mark.parametrize(
    ("change", "rolls"),
    [
        ({"callers": {"batch": {"keys": ["1" * 64], "apps": ["shop"]}}}, False),
        ({"query": {"since": "-P7D"}}, False),
        ({"cache": {"fresh_s": 16}}, False),
        ({"budget": {"wait_max_s": 31}}, True),  # the grace period follows it
        ({"cache": {"memory_bytes": 0}}, True),
        ({"apps": {"shop": {"calls": 4}}}, True),
    ],
)
def test_with_live_reload_pods_restart_only_if_necessary(change: Values, *, rolls: bool) -> None:
    """The pod template changes exactly where the change needs a restart; the ConfigMap always does."""
    live: Values = {"liveReload": True}
    before, after = render(live), render(live, {"config": change})
    assert (before.pod != after.pod) is rolls
    assert before.config != after.config
    assert render().pod != render({"config": change}).pod, "without it every change rolls them"


def test_no_secret_is_created_or_contained() -> None:
    """The chart refers to Secrets, and makes none."""
    for patch in MATRIX.values():
        assert "Secret" not in render(patch).kinds()


def test_pod_labels_never_replace_those_of_the_chart() -> None:
    """podLabels are added, and can't take a pod from its Service."""
    labels = render({"podLabels": {"app.kubernetes.io/name": "other", "team": "push"}}).pod["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "taskgate"
    assert labels["team"] == "push"


@pytest.mark.parametrize(
    ("redis", "ports"),
    [
        ({"url": "redis://redis.data"}, [6379]),
        ({"url": "rediss://user@redis.data:6380/3"}, [6380]),
        ({"url": "redis://a:7000,b:7001,c:7000", "mode": "cluster"}, [7000, 7001]),
        ({"url": "redis://a:26379,b:26379", "mode": "sentinel"}, [26379, 6379]),
        ({"url": "redis://[fd00::1]:6390/0"}, [6390]),
        ({"url": "redis://[fd00::1]"}, [6379]),
    ],
)
def test_the_policy_allows_dns_redis_and_the_upstream(redis: Values, ports: list[int]) -> None:
    """Egress has the ports of redis.url, DNS and 443, and no rule without ports."""
    egress = render({"config": {"redis": redis}}).one("NetworkPolicy")["spec"]["egress"]
    assert [[port["port"] for port in rule["ports"]] for rule in egress] == [[53, 53], ports, [443]]


def _egress(*patches: Values) -> dict[tuple[int, ...], Any]:
    rules = render(*patches).one("NetworkPolicy")["spec"]["egress"]
    return {tuple(sorted({port["port"] for port in rule["ports"]})): rule.get("to") for rule in rules}


def test_the_policy_allows_only_dns_and_redis_in_private_networks() -> None:
    """By default only DNS and Redis' port are open within private networks."""
    egress = _egress()
    assert [peer["podSelector"]["matchLabels"] for peer in egress[53,]] == [{"k8s-app": "kube-dns"}]
    blocks = [peer["ipBlock"] for peer in egress[443,]]
    assert {block["cidr"] for block in blocks} == {"0.0.0.0/0", "::/0"}
    assert all(block["except"] for block in blocks)


@pytest.mark.parametrize(
    ("config", "ports"),
    [
        ({"apps": {"shop": {"base_url": "http://upstream.mocks"}}}, 80),
        ({"apps": {"shop": {"base_url": "https://upstream.mocks:8443/v4"}}}, 8443),
        ({"apps": {"shop": {"base_url": "https://[fd00::1]:8443"}}}, 8443),
        ({"upstream": {"proxy_url": "http://proxy.egress:3128"}}, 3128),
    ],
)
def test_the_policy_allows_the_ports_of_base_urls(config: Values, ports: int) -> None:
    """A base URL may be inside the cluster: only its port is open, to any address."""
    assert _egress({"config": config})[ports,] is None
    assert (443,) not in _egress({"config": config})
    to = [{"podSelector": {"matchLabels": {"app": "mock"}}}]
    assert _egress({"config": config}, {"networkPolicy": {"https": {"to": to}}})[ports,] == to


def test_the_policy_allows_collector_and_api_server_if_used() -> None:
    """Their rules exist with the settings that need them, and are as narrow as the values say."""
    egress = _egress(MATRIX["all of a platform team's"])
    assert egress[4318,][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "traces"}
    assert egress[6443,] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
    assert set(_egress()) == {(53,), (6379,), (443,)}


def test_a_unix_socket_needs_no_egress_rule() -> None:
    """There is no rule for Redis on a socket, and no rule without ports, which would allow every port."""
    assert set(_egress({"config": {"redis": {"url": "unix:///run/valkey.sock"}}})) == {(53,), (443,)}


def test_with_another_scaler_the_deployment_has_no_replicas() -> None:
    """An upgrade never sets back what an autoscaler chose."""
    rendered = render(MATRIX["autoscaled"])
    assert "replicas" not in rendered.one("Deployment")["spec"]
    assert rendered.one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "tg-taskgate"
    outside = render(MATRIX["scaled from outside"])
    assert "replicas" not in outside.one("Deployment")["spec"]
    assert "HorizontalPodAutoscaler" not in outside.kinds()


def test_the_autoscaler_targets_a_share_of_a_core() -> None:
    """A process uses at most one core; the target is 0.7 of it, regardless of the pods' requests."""
    (metric,) = render(MATRIX["autoscaled"]).one("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["resource"] == {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "700m"}}


@pytest.mark.parametrize(
    ("name", "metric", "target"),
    [
        ("scaled on lag", "taskgate_event_loop_lag_seconds_p99", "20m"),
        ("scaled on requests", "taskgate_requests_per_second", "800"),
    ],
)
def test_the_autoscaler_uses_metrics_of_the_adapters_rules(name: str, metric: str, target: str) -> None:
    """The names agree with examples/prometheus-adapter-values.yaml."""
    (asked,) = render(MATRIX[name]).one("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert asked["pods"] == {"metric": {"name": metric}, "target": {"type": "AverageValue", "averageValue": target}}
    example = yaml.safe_load((CHART / "examples" / "prometheus-adapter-values.yaml").read_text())
    assert metric in {rule["name"]["as"] for rule in example["rules"]["custom"]}


def test_custom_metrics_replace_those_of_the_autoscaler() -> None:
    """`metrics` are used unchanged."""
    patch = MATRIX["scaled on metrics of one's own"]
    assert render(patch).one("HorizontalPodAutoscaler")["spec"]["metrics"] == patch["autoscaling"]["metrics"]


def test_every_object_has_the_namespace_and_the_common_labels() -> None:
    """`namespaceOverride` and `commonLabels` leave no object out, hooks and pods neither; selectors stay."""
    rendered = render(MATRIX["all of a platform team's"], MONITORED, {"prometheusRule": {"labels": {"team": "other"}}})
    for made in rendered.objects:
        if made["metadata"]["name"] in ("tg-extra", "tg-taskgate-text"):
            continue
        if made["kind"] != "ClusterRoleBinding":
            assert made["metadata"]["namespace"] == "push", made["kind"]
        team = "other" if made["kind"] == "PrometheusRule" else "push"
        assert made["metadata"]["labels"]["team"] == team, made["kind"]
    assert rendered.pod["metadata"]["labels"]["team"] == "push"
    assert "team" not in rendered.one("Deployment")["spec"]["selector"]["matchLabels"]


def test_pod_spec_is_merged() -> None:
    """`podSpec` adds to the pod's specification and removes nothing."""
    spec = render(MATRIX["all of a platform team's"]).pod["spec"]
    assert spec["schedulerName"] == "own"
    assert spec["securityContext"]["supplementalGroups"] == [20]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert [container["name"] for container in spec["containers"]] == ["gateway", "proxy"]


def test_two_releases_have_two_dashboards() -> None:
    """Grafana's sidecar writes the files of all namespaces into one folder: file, uid and title differ."""

    def board(*patches: Values) -> tuple[str, str, str]:
        data = render(MONITORED, *patches).one("ConfigMap", "tg-taskgate-dashboard")["data"]
        (name, text), *more = data.items()
        assert not more
        made = json.loads(text)
        assert len(made["uid"]) <= 40
        return name, made["uid"], made["title"]

    assert all(here != there for here, there in zip(board(), board({"namespaceOverride": "other"}), strict=True))


def test_extra_objects_are_templates() -> None:
    """`extraObjects` takes objects and texts, and both know the release."""
    rendered = render(MATRIX["all of a platform team's"])
    assert {"tg-extra", "tg-taskgate-text"} <= {made["metadata"]["name"] for made in rendered.objects}


def test_the_notes_warn_of_missing_callers_and_the_trial_valkey() -> None:
    """NOTES.txt warns of no callers and of the Valkey for trying out, and only then."""
    plain = render().notes
    assert "http://tg-taskgate.prod:80" in plain
    assert "NO CALLERS YET" not in plain
    assert "NOT FOR PRODUCTION" not in plain
    trying = render(TRYING, {"config": {"callers": {"reports": {"keys": [], "apps": []}}}}).notes
    assert "NOT FOR PRODUCTION" in trying
    assert "NO CALLERS YET" in render({"config": {"callers": GONE}}).notes
