"""The life of a release through Helm's own client, on a real API server."""

import json
import os
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
import yaml

from tests.chart.matrix import TRYING
from tests.chart.rendering import CHART, GONE, Values, merged
from tests.cluster.cluster import Cluster, CommandFailed, Object, Output
from tests.cluster.node import Node
from tests.ports import free_port
from tests.servers import Server

pytestmark = pytest.mark.cluster

NAME = "tg"
GATEWAYS = f"app.kubernetes.io/instance={NAME},app.kubernetes.io/component=gateway"
LISTED = "deployments,replicasets,pods,services,configmaps,serviceaccounts,networkpolicies,poddisruptionbudgets,jobs"


class Release:
    """The release in one namespace, by one Helm, with values that all its revisions have."""

    def __init__(self, cluster: Cluster, namespace: str, helm: int, values: Values) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._helm = helm
        self._values = values

    def upgrade(self, *patches: Values) -> Output:
        """Install or upgrade, and wait until it is rolled out."""
        values = yaml.safe_dump(merged(self._values, *patches))
        return self.helm("upgrade", "--install", "--wait", NAME, str(CHART), "--values=-", stdin=values)

    def helm(self, *arguments: str, stdin: str | None = None) -> Output:
        """Run Helm in the namespace."""
        return self._cluster.helm(self._helm, *arguments, f"--namespace={self._namespace}", stdin=stdin)

    def objects(self, kinds: str, selector: str = f"app.kubernetes.io/instance={NAME}") -> Sequence[Object]:
        """Return the release's objects of these kinds."""
        return self._cluster.all(kinds, namespace=self._namespace, selector=selector)

    def config(self) -> Any:
        """Return the gateway's current configuration in the cluster."""
        found = self._cluster.get("configmap", f"{NAME}-taskgate", namespace=self._namespace)
        return yaml.safe_load(found["data"]["taskgate.yaml"])

    def ready_by_set(self) -> list[int]:
        """Return how many ready pods each ReplicaSet has, the oldest revision first."""
        revision = "deployment.kubernetes.io/revision"
        ordered = sorted(
            self.objects("replicasets", GATEWAYS), key=lambda each: int(each["metadata"]["annotations"][revision])
        )
        return [each["status"].get("readyReplicas", 0) for each in ordered]

    def history(self) -> list[tuple[int, str]]:
        """Return each revision and its status."""
        history = json.loads(self.helm("history", NAME, "--output=json").stdout)
        return [(each["revision"], each["status"]) for each in history]


def reachable(node: Node | None, valkey: Server) -> Values:
    """Return values by which pods reach a Redis, and don't take each other's ports where they share a machine."""
    if node is None:
        return TRYING | {"image": {"repository": os.environ["TASKGATE_IMAGE"]}}
    ports = {"server": {"port": free_port()}, "telemetry": {"metrics_port": free_port()}}
    return {"config": {"redis": {"url": valkey.url}} | ports}


@pytest.fixture
def values(cluster: Cluster, namespace: str, node: Node | None, valkey: Server) -> Values:
    """The smallest set of values and its requirements: a Redis, and the app's key in a Secret."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "taskgate-apps"},
        "stringData": {"shop": "key"},
    }
    cluster.create(secret, namespace=namespace)
    return reachable(node, valkey)


@pytest.fixture(params=[3, 4], ids=["helm 3", "helm 4"])
def release(request: pytest.FixtureRequest, cluster: Cluster, namespace: str, values: Values) -> Release:
    return Release(cluster, namespace, request.param, values)


def test_a_release_is_installed_upgraded_rolled_back_and_uninstalled(release: Release, cluster: Cluster) -> None:
    """The release is installed, tested, upgraded, rolled back and uninstalled without a warning, and leaves nothing
    behind.
    """
    outputs = [release.upgrade()]
    assert release.ready_by_set() == [2]
    outputs.append(release.helm("test", NAME))

    outputs.append(release.upgrade({"config": {"cache": {"fresh_s": 17}}, "replicaCount": 3}))
    assert release.config()["cache"]["fresh_s"] == 17
    assert release.ready_by_set() == [0, 3]

    outputs.append(release.helm("rollback", NAME, "1", "--wait"))
    assert "fresh_s" not in release.config()["cache"]
    assert release.ready_by_set() == [0, 2]
    assert release.history() == [(1, "superseded"), (2, "superseded"), (3, "deployed")]

    outputs.append(release.helm("uninstall", NAME, "--wait"))
    cluster.wait(lambda: not release.objects(LISTED))
    assert [line for output in outputs for line in output.warnings] == []


def test_a_rejected_configuration_changes_nothing(release: Release) -> None:
    """The check before an upgrade reads files that no template can see, and the pods keep running."""
    release.upgrade()
    before = {pod["metadata"]["name"] for pod in release.objects("pods", GATEWAYS)}
    wrong = {"env": [{"name": "TASKGATE__BUDGET__CALLS", "value": "many"}], "config": {"cache": {"fresh_s": 17}}}
    with pytest.raises(CommandFailed, match="pre-upgrade"):
        release.upgrade(wrong)
    assert "fresh_s" not in release.config()["cache"]
    assert {pod["metadata"]["name"] for pod in release.objects("pods", GATEWAYS)} == before
    assert release.ready_by_set() == [2]
    release.upgrade({"config": {"cache": {"fresh_s": 18}}})
    assert release.config()["cache"]["fresh_s"] == 18


@pytest.mark.parametrize(
    "scaled",
    [
        {"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 5}},
        {"replicaCount": None},
    ],
    ids=["the chart's autoscaler", "another's"],
)
def test_replicas_set_by_another_scaler_are_kept(
    release: Release, cluster: Cluster, namespace: str, scaled: Values
) -> None:
    """Neither switching autoscaling on nor a later upgrade sets back the number that the cluster has."""

    def replicas() -> int:
        found: int = cluster.get("deployment", f"{NAME}-taskgate", namespace=namespace)["spec"]["replicas"]
        return found

    release.upgrade({"replicaCount": 3})
    release.upgrade(scaled)
    assert replicas() == 3
    cluster.kubectl("scale", f"deployment/{NAME}-taskgate", "--replicas=4", f"--namespace={namespace}")
    release.upgrade(scaled, {"config": {"cache": {"fresh_s": 17}}})
    assert replicas() == 4


def test_helm_test_fails_without_redis(release: Release, node: Node | None) -> None:
    """`helm test` runs in a separate pod and reports faults."""
    if node is None:
        pytest.fail("needs a cluster without nodes: unset KUBECONFIG")
    unreachable = {"config": {"redis": {"url": f"redis://127.0.0.1:{free_port()}/0"}}}
    release.upgrade(unreachable)
    with pytest.raises(CommandFailed, match="tg-taskgate-test"):
        release.helm("test", NAME)
    (pod,) = release.objects("pods", "app.kubernetes.io/component=test")
    assert "not all of its parts are well" in node.log(pod["metadata"]["name"])


def test_a_pod_checks_tokens_with_the_mounted_files(
    cluster: Cluster, namespace: str, values: Values, node: Node | None
) -> None:
    """With `rbac.issuerDiscovery` the pod's own token and CA are enough to read the API server's keys."""
    if node is None:
        pytest.fail("needs a cluster without nodes: unset KUBECONFIG")
    mounted = "/run/secrets/taskgate/cluster"
    trusted = {
        "issuer": cluster.issuer,
        "audience": "taskgate",
        "jwks_url": f"{cluster.url}/openid/v1/jwks",
        "ca_file": f"{mounted}/ca.crt",
        "token_file": f"{mounted}/token",
    }
    callers = {"reports": {"keys": GONE, "service_accounts": [f"{namespace}/reports"], "apps": ["shop"]}}
    tokens = {"rbac": {"issuerDiscovery": True}, "config": {"callers": callers, "service_accounts": trusted}}
    Release(cluster, namespace, 4, values).upgrade(tokens)
    cluster.kubectl("create", "serviceaccount", "reports", f"--namespace={namespace}")
    assert _asked(node, cluster.token("reports", namespace=namespace, audience="taskgate")) == 200
    assert _asked(node, cluster.token("reports", namespace=namespace, audience="another")) == 401
    assert _asked(node, "0" * 64) == 401


def _asked(node: Node, credential: str) -> int:
    url = node.resolved(f"http://{NAME}-taskgate:80/budget?app=shop")
    return httpx.get(url, headers={"Authorization": f"Bearer {credential}"}, trust_env=False).status_code
