"""What the chart makes of each value set, as a real API server takes it."""

import pytest
import yaml

from tests.chart.matrix import MATRIX
from tests.chart.rendering import CHART, merged
from tests.cluster.cluster import Cluster

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_every_object_is_admitted_without_a_warning(
    cluster: Cluster, namespace: str, values: dict[str, object]
) -> None:
    """No field is unknown, nothing is deprecated, and PodSecurity's restricted level has nothing to say."""
    arguments = ("template", "tg", str(CHART), f"--namespace={namespace}", "--values=-")
    text = cluster.helm(4, *arguments, stdin=yaml.safe_dump(merged(values))).stdout
    objects = [made for made in yaml.safe_load_all(text) if made]
    output = cluster.create(*objects, namespace=namespace, dry_run=True)
    assert output.stderr == ""
    assert output.stdout.count("created (server dry run)") == len(objects)


def test_what_is_not_restricted_is_warned_of(cluster: Cluster, namespace: str) -> None:
    """The namespace is what the test above relies on: a Deployment of a pod that may become root is warned of."""
    arguments = ("template", "tg", str(CHART), f"--namespace={namespace}", "--values=-")
    values = merged({"securityContext": {"allowPrivilegeEscalation": True}})
    text = cluster.helm(4, *arguments, "--show-only=templates/deployment.yaml", stdin=yaml.safe_dump(values)).stdout
    output = cluster.create(yaml.safe_load(text), namespace=namespace, dry_run=True)
    assert "would violate PodSecurity" in output.stderr
