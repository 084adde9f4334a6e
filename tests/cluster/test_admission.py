"""The chart's objects for each set of values are accepted by a real API server."""

from typing import Any

import pytest
import yaml

from tests.chart.matrix import MATRIX
from tests.chart.rendering import CHART, Values, merged
from tests.cluster.cluster import Cluster, Object

pytestmark = pytest.mark.cluster

CLASSES: tuple[Object, ...] = (
    {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000},
    {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"}, "handler": "runsc"},
)
"""What value sets name and a cluster must have."""


@pytest.fixture(scope="module")
def with_classes(cluster: Cluster) -> Cluster:
    """A cluster that has the classes."""
    for made in CLASSES:
        cluster.ensure(made)
    return cluster


def rendered(cluster: Cluster, namespace: str, values: Values, *options: str) -> list[Any]:
    """Return the objects that Helm makes of these values in a namespace."""
    if "namespaceOverride" in values:
        values = values | {"namespaceOverride": namespace}
    arguments = ("template", "tg", str(CHART), f"--namespace={namespace}", "--values=-", *options)
    text = cluster.helm(4, *arguments, stdin=yaml.safe_dump(merged(values))).stdout
    return [made for made in yaml.safe_load_all(text) if made]


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_every_object_is_admitted_without_a_warning(with_classes: Cluster, namespace: str, values: Values) -> None:
    """No field is unknown or deprecated, and PodSecurity's restricted level has no objections."""
    objects = rendered(with_classes, namespace, values)
    output = with_classes.create(*objects, namespace=namespace, dry_run=True)
    assert output.stderr == ""
    assert output.stdout.count("created (server dry run)") == len(objects)


def test_unrestricted_pods_cause_a_warning(cluster: Cluster, namespace: str) -> None:
    """The namespace behaves as the test above assumes: a Deployment whose pod may become root causes a warning."""
    values = {"securityContext": {"allowPrivilegeEscalation": True}}
    objects = rendered(cluster, namespace, values, "--show-only=templates/deployment.yaml")
    output = cluster.create(*objects, namespace=namespace, dry_run=True)
    assert "would violate PodSecurity" in output.stderr
