"""The life of a release through Helm's own client, on a real API server."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, merged
from tests.cluster.cluster import Cluster, Object, Output

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("node")]

NAME = "tg"
GATEWAYS = f"app.kubernetes.io/instance={NAME},app.kubernetes.io/component=gateway"
LISTED = "deployments,replicasets,pods,services,configmaps,serviceaccounts,networkpolicies,poddisruptionbudgets,jobs"


class Release:
    """The release in one namespace, by one Helm."""

    def __init__(self, cluster: Cluster, namespace: str, helm: int) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._helm = helm

    def upgrade(self, *patches: dict[str, Any]) -> Output:
        """Install or upgrade, and wait until it is rolled out."""
        return self.helm(
            "upgrade", "--install", "--wait", NAME, str(CHART), "--values=-", stdin=yaml.safe_dump(merged(*patches))
        )

    def helm(self, *arguments: str, stdin: str | None = None) -> Output:
        """Run Helm in the namespace."""
        return self._cluster.helm(self._helm, *arguments, f"--namespace={self._namespace}", stdin=stdin)

    def objects(self, kinds: str, selector: str = f"app.kubernetes.io/instance={NAME}") -> Sequence[Object]:
        """Return the release's objects of these kinds."""
        return self._cluster.all(kinds, namespace=self._namespace, selector=selector)

    def config(self) -> Any:
        """Return the gateway's configuration as it stands in the cluster."""
        found = self._cluster.get("configmap", f"{NAME}-taskgate", namespace=self._namespace)
        return yaml.safe_load(found["data"]["taskgate.yaml"])

    def replicas_by_set(self) -> list[int]:
        """Return how many ready pods each ReplicaSet has, the oldest first."""
        sets = self.objects("replicasets", GATEWAYS)
        revision = "deployment.kubernetes.io/revision"
        ordered = sorted(sets, key=lambda each: int(each["metadata"]["annotations"][revision]))
        return [each["status"].get("readyReplicas", 0) for each in ordered]


@pytest.fixture(params=[3, 4], ids=["helm 3", "helm 4"])
def release(request: pytest.FixtureRequest, cluster: Cluster, namespace: str) -> Release:
    return Release(cluster, namespace, request.param)


def test_a_release_from_its_install_to_its_end(release: Release) -> None:
    """Installed, tested, upgraded, rolled back and uninstalled without a warning; nothing of it is left."""
    outputs = [release.upgrade()]
    assert release.replicas_by_set() == [2]
    outputs.append(release.helm("test", NAME))

    outputs.append(release.upgrade({"config": {"cache": {"fresh_s": 17}}, "replicaCount": 3}))
    assert release.config()["cache"] == {"fresh_s": 17}
    assert release.replicas_by_set() == [0, 3]

    outputs.append(release.helm("rollback", NAME, "1", "--wait"))
    assert "cache" not in release.config() or not release.config()["cache"]
    assert release.replicas_by_set() == [0, 2]
    history = json.loads(release.helm("history", NAME, "--output=json").stdout)
    assert [(each["revision"], each["status"]) for each in history] == [
        (1, "superseded"),
        (2, "superseded"),
        (3, "deployed"),
    ]

    outputs.append(release.helm("uninstall", NAME, "--wait"))
    assert [f"{each['kind']}/{each['metadata']['name']}" for each in release.objects(LISTED)] == []
    assert [line for output in outputs for line in output.warnings] == []
