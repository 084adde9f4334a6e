"""A gateway outside the cluster accepts the tokens of its service accounts, by the keys of its API server."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.sandbox.serving import Sandbox
from tests.chart.rendering import CHART, merged
from tests.cluster.cluster import Cluster, Object
from tests.cluster.control_plane import ControlPlane
from tests.integration.callers.mounted import APP, Mounted, mounted
from tests.scenes.fleet import Got
from tests.servers import Server

pytestmark = pytest.mark.cluster

AUDIENCE = "taskgate"
GATEWAY, CALLER, STRANGER = "tg-taskgate", "reports", "stranger"
DISCOVERY = "system:service-account-issuer-discovery"


class Accounts:
    """Service accounts in a namespace, the gateway's among them, and the gateway's files of the cluster."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self.token_file, self.ca_file = folder / "gateway.token", folder / "cluster-ca.crt"
        accounts = [_account(name) for name in (GATEWAY, CALLER, STRANGER)]
        cluster.create(*accounts, namespace=namespace)
        cluster.wait(self._read_ca)
        self.renew()

    def token(self, account: str, audience: str | None) -> str:
        """Return a new token of an account."""
        return self._cluster.token(account, namespace=self._namespace, audience=audience)

    def renew(self) -> None:
        """Write a new token for the gateway, as the kubelet does before the old one expires."""
        self.token_file.write_text(self.token(GATEWAY, None))

    def settings(self) -> dict[str, Any]:
        """Return the sections of the configuration that trust the cluster, and know one account of it."""
        return {
            "callers": {"reports": {"service_accounts": [f"{self._namespace}/{CALLER}"], "apps": [APP]}},
            "service_accounts": {
                "issuer": self._cluster.issuer,
                "audience": AUDIENCE,
                "jwks_url": f"{self._cluster.url}/openid/v1/jwks",
                "ca_file": str(self.ca_file),
                "token_file": str(self.token_file),
                "refresh_s": 1,
            },
        }

    def _read_ca(self) -> bool:
        published = self._cluster.all("configmaps", namespace=self._namespace)
        for each in published:
            if each["metadata"]["name"] == "kube-root-ca.crt":
                self.ca_file.write_text(each["data"]["ca.crt"])
                return True
        return False


def _account(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}


@pytest.fixture
def accounts(cluster: Cluster, namespace: str, tmp_path: Path) -> Accounts:
    return Accounts(cluster, namespace, tmp_path)


@pytest.fixture
def mount(tmp_path: Path, valkey: Server, sandbox: Sandbox) -> Mounted:
    folder = tmp_path / "mounted"
    folder.mkdir()
    return Mounted(folder, valkey=valkey, sandbox=sandbox)


async def test_tokens_are_accepted_for_our_audience_only(mount: Mounted, accounts: Accounts) -> None:
    """A known account's token for our audience is accepted; one for another audience or the API server is rejected,
    and so is an unknown account."""
    mount.put(**accounts.settings())
    async with mounted(mount):
        assert (await mount.ask(accounts.token(CALLER, AUDIENCE))).status == 200
        assert (await mount.ask(accounts.token(CALLER, "another"))).status == 401
        assert (await mount.ask(accounts.token(CALLER, None))).status == 401
        stranger = await mount.ask(accounts.token(STRANGER, AUDIENCE))
        assert (stranger.status, stranger.json["type"]) == (403, "/problems/not-allowed")


@pytest.fixture
def without_default_binding(own_control_plane: ControlPlane, own_cluster: Cluster) -> Iterator[None]:
    """Only subjects with the role can read the API server's keys: a hardened cluster has no default binding."""
    kept = own_cluster.kubectl("get", "clusterrolebinding", DISCOVERY, "-o=json").stdout
    own_cluster.kubectl("delete", "clusterrolebinding", DISCOVERY)
    yield
    bound = json.loads(kept)
    bound["metadata"] = {key: bound["metadata"][key] for key in ("name", "labels", "annotations")}
    own_cluster.create(bound, namespace="default")


@pytest.mark.usefixtures("without_default_binding")
async def test_the_charts_rbac_allows_reading_the_keys(
    mount: Mounted, own_cluster: Cluster, own_namespace: str, tmp_path: Path
) -> None:
    """Without it tokens can't be checked (503, and the log says 403); with it they can, and no restart is needed."""
    accounts = Accounts(own_cluster, own_namespace, tmp_path)
    mount.put(**accounts.settings())
    async with mounted(mount):
        early = await mount.ask(accounts.token(CALLER, AUDIENCE))
        assert (early.status, early.json["type"]) == (503, "/problems/keys-unavailable")
        assert "403" in mount.events("issuer.keys_unavailable")[0]["detail"]
        _bind_as_the_chart_does(own_cluster, own_namespace)
        await mount.logged("issuer.keys_fetched", 1)
        assert (await mount.ask(accounts.token(CALLER, AUDIENCE))).status == 200


def _bind_as_the_chart_does(cluster: Cluster, namespace: str) -> None:
    values = yaml.safe_dump(merged({"rbac": {"issuerDiscovery": True}}))
    options = (f"--namespace={namespace}", "--values=-", "--show-only=templates/rbac.yaml")
    text = cluster.helm(4, "template", "tg", str(CHART), *options, stdin=values).stdout
    cluster.create(yaml.safe_load(text), namespace=namespace)


async def test_signing_keys_are_rotated(
    mount: Mounted, own_control_plane: ControlPlane, own_cluster: Cluster, own_namespace: str, tmp_path: Path
) -> None:
    """A new key is accepted at once, next to the old one; once the old one is removed, its tokens are rejected."""
    accounts = Accounts(own_cluster, own_namespace, tmp_path)
    mount.put(**accounts.settings())
    async with mounted(mount):
        old = accounts.token(CALLER, AUDIENCE)
        assert (await mount.ask(old)).status == 200

        own_control_plane.rotate_signing_key(keep=True)
        accounts.renew()
        new = accounts.token(CALLER, AUDIENCE)
        assert (await _settled(mount, new, 200)).status == 200
        assert (await mount.ask(old)).status == 200

        own_control_plane.rotate_signing_key(keep=False)
        accounts.renew()
        last = accounts.token(CALLER, AUDIENCE)
        assert (await _settled(mount, last, 200)).status == 200
        assert (await mount.ask(old)).status == 401
        assert (await mount.ask(new)).status == 401


async def _settled(mount: Mounted, token: str, status: int) -> Got:
    """Repeat the request until the response has this status: the keys are read again every second."""
    async with asyncio.timeout(30):
        while (answer := await mount.ask(token)).status != status:
            await asyncio.sleep(0.1)
    return answer
