"""One cluster for the session, from KUBECONFIG or a control plane started here, and a namespace for each test."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cluster.cluster import AlreadyThere, Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.node import Node
from tests.cluster.programs import crds, programs

GIVEN = os.environ.get("KUBECONFIG")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory for Helm's files."""
    return tmp_path_factory.mktemp("helm")


@pytest.fixture(scope="session")
def own_control_plane() -> Iterator[ControlPlane]:
    """A control plane started by the tests."""
    with ControlPlane(programs()) as plane:
        yield plane


@pytest.fixture(scope="session")
def own_cluster(own_control_plane: ControlPlane, scratch: Path) -> Cluster:
    """A cluster whose cluster-wide objects a test may change."""
    return Cluster(kubeconfig=own_control_plane.kubeconfig, programs=programs(), scratch=scratch)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, scratch: Path) -> Cluster:
    """The session's cluster, with the kinds of the Prometheus Operator and the Gateway API."""
    if GIVEN:
        made = Cluster(kubeconfig=Path(GIVEN), programs=programs(), scratch=scratch)
    else:
        made = request.getfixturevalue("own_cluster")
    for path in crds():
        with suppress(AlreadyThere):
            made.kubectl("create", f"--filename={path}")
    return made


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A restricted namespace of the session's cluster."""
    with restricted_namespace(cluster) as name:
        yield name


@pytest.fixture
def own_namespace(own_cluster: Cluster) -> Iterator[str]:
    """A restricted namespace of the tests' own cluster."""
    with restricted_namespace(own_cluster) as name:
        yield name


@contextmanager
def restricted_namespace(cluster: Cluster) -> Iterator[str]:
    """Create a namespace that admits only pods at PodSecurity's restricted level, and warns of others."""
    name = f"taskgate-test-{os.getpid()}-{next(_numbers)}"
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": levels}}
    cluster.create(document, namespace="default")
    try:
        cluster.wait(lambda: bool(cluster.all("serviceaccounts", namespace=name)))
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def node(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Node | None]:
    """Run the pods of the namespace, on the cluster's nodes or, if it has none, by a stand-in."""
    if cluster.has_nodes():
        yield None
        return
    with Node(cluster, namespace, tmp_path) as made:
        yield made
