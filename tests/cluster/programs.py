"""The programs of a cluster, built from the Go modules that go/go.mod pins: `python -m tests.cluster.programs`.

They are built once for each state of that file, which takes some minutes, and kept in the user's cache.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

_MODULE = Path(__file__).parent / "go"
_KUBERNETES = "k8s.io/kubernetes"
_CRDS = Path(__file__).parent / "crds"
_PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": f"{_KUBERNETES}/cmd/kube-apiserver",
    "kube-controller-manager": f"{_KUBERNETES}/cmd/kube-controller-manager",
    "kubectl": f"{_KUBERNETES}/cmd/kubectl",
    "helm3": "helm.sh/helm/v3/cmd/helm",
    "helm4": "helm.sh/helm/v4/cmd/helm",
}


def programs() -> Path:
    """Return the folder of all programs; build missing ones. Raise CalledProcessError if that fails."""
    digest = hashlib.sha256((_MODULE / "go.mod").read_bytes() + (_MODULE / "go.sum").read_bytes()).hexdigest()
    folder = _cache() / digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, package in _PACKAGES.items():
            if not (folder / name).exists():
                _build(package, folder / name)
    return folder


def crds() -> list[Path]:
    """Return the definitions of the kinds that the chart uses and Kubernetes lacks, as pinned by crds/go.mod."""
    found = {
        "github.com/prometheus-operator/prometheus-operator": (
            "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        ),
        "sigs.k8s.io/gateway-api": ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
    }
    return [_module(name) / file for name, files in found.items() for file in files]


def _module(name: str) -> Path:
    command = ["go", "mod", "download", "-json", name]
    done = subprocess.run(command, cwd=_CRDS, check=True, capture_output=True, text=True)
    return Path(json.loads(done.stdout)["Dir"])


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taskgate" / "cluster"


def _build(package: str, program: Path) -> None:
    print(f"building {package}", file=sys.stderr, flush=True)
    unfinished = program.with_suffix(".new")
    command = ["go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", _ldflags()]
    subprocess.run([*command, "-o", str(unfinished), package], cwd=_MODULE, check=True)
    unfinished.rename(program)


def _ldflags() -> str:
    """Stamp the version like Kubernetes' own builds: without it, a server reports version 0.0."""
    found = ["go", "list", "-mod=readonly", "-m", "-f", "{{.Version}}", _KUBERNETES]
    version = subprocess.run(found, cwd=_MODULE, check=True, capture_output=True, text=True).stdout.strip()
    major, minor, _ = version.removeprefix("v").split(".", 2)
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return "-s -w " + " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in stamps.items())


if __name__ == "__main__":
    crds()
    print(programs())
