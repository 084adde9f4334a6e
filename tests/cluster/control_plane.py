"""A Kubernetes control plane on loopback, started by the tests: etcd, API server and controllers, without nodes."""

import json
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.certificates import Authority, SigningKey
from tests.death import die_with_parent
from tests.ports import free_port
from tests.servers import eventually

ISSUER = "https://kubernetes.default.svc.cluster.local"
_START_S = 90.0
_CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "garbage-collector-controller",
    "job-controller",
    "disruption-controller",
    "endpointslice-controller",
    "clusterrole-aggregation-controller",
)


class ControlPlane:
    """The three programs, and `kubeconfig` for an administrator. `programs` is the folder that holds them."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="control-plane-"))
        self._authority = Authority(self._folder)
        self._signing_keys = [SigningKey(self._folder, "signing-1")]
        self._etcd_port, self._port = free_port(), free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()
        self.kubeconfig = self._kubeconfig("admin", groups=("system:masters",))

    @property
    def url(self) -> str:
        """Where the API server is."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def ca_file(self) -> Path:
        """The CA of the API server's certificate."""
        return self._authority.certificate

    def rotate_signing_key(self, *, keep: bool) -> None:
        """Sign tokens with a new key from now on. Tokens of the previous keys stay valid if these are kept."""
        new = SigningKey(self._folder, f"signing-{len(self._signing_keys) + 1}")
        self._signing_keys = [new, *(self._signing_keys if keep else ())]
        self._stop("kube-apiserver")
        self._start_api_server()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            stack.callback(self._stop_all)
            self._start_etcd()
            self._start_api_server()
            self._start_controllers()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _start_etcd(self) -> None:
        peer = f"http://127.0.0.1:{free_port()}"
        client = f"http://127.0.0.1:{self._etcd_port}"
        self._start(
            "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def _start_api_server(self) -> None:
        certificate, key = self._authority.issue("kube-apiserver")
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            f"--secure-port={self._port}",
            "--bind-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self.ca_file}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24,fd00:10::/112",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-signing-key-file={self._signing_keys[0].private}",
            *(f"--service-account-key-file={key.public}" for key in self._signing_keys),
        )
        eventually(self._is_ready, within_s=_START_S)

    def _start_controllers(self) -> None:
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self._kubeconfig('system:kube-controller-manager')}",
            "--secure-port=0",
            "--leader-elect=false",
            "--use-service-account-credentials",
            f"--controllers={','.join(_CONTROLLERS)}",
            f"--root-ca-file={self.ca_file}",
        )

    def _kubeconfig(self, user: str, *, groups: tuple[str, ...] = ()) -> Path:
        certificate, key = self._authority.issue(user, groups=groups)
        path = self._folder / f"{user}.kubeconfig"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.ca_file)}}],
            "users": [{"name": user, "user": {"client-certificate": str(certificate), "client-key": str(key)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(document))
        return path

    def _is_ready(self) -> bool:
        if self._processes["kube-apiserver"].poll() is not None:
            raise RuntimeError((self._folder / "kube-apiserver.log").read_text()[-3000:])
        command = [self._programs / "kubectl", f"--kubeconfig={self.kubeconfig}", "get", "--raw=/readyz"]
        return subprocess.run(command, check=False, capture_output=True, timeout=30).stdout == b"ok"

    def _start(self, program: str, *options: str) -> None:
        with (self._folder / f"{program}.log").open("ab") as log:
            self._processes[program] = subprocess.Popen(
                [self._programs / program, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )

    def _stop(self, program: str) -> None:
        process = self._processes.pop(program)
        process.kill()
        process.wait()

    def _stop_all(self) -> None:
        for program in list(self._processes):
            self._stop(program)
