"""Runs a pod's container as a process of this machine, with its command, environment and files."""

import base64
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.cluster.cluster import Cluster, CommandFailed, Object
from tests.death import die_with_parent

_ROOT = Path(__file__).resolve().parents[2]
_ENTRYPOINT, _COMMAND = ["python", "-m", "service"], ["serve"]
"""The image's, as the Dockerfile has them."""


class Files:
    """The volumes of a pod, written below a folder of this machine."""

    def __init__(self, cluster: Cluster, pod: Object, folder: Path) -> None:
        self._cluster = cluster
        self._pod = pod
        self._namespace: str = pod["metadata"]["namespace"]
        self._volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
        self._folder = folder
        self._mounts: dict[str, Path] = {}

    def mount(self, container: Object) -> None:
        """Write all that the container mounts."""
        for mount in container.get("volumeMounts", ()):
            path = self._folder / mount["mountPath"].strip("/").replace("/", "-")
            self._mounts[mount["mountPath"]] = path
            path.mkdir(exist_ok=True)
        for mount in container.get("volumeMounts", ()):
            for name, content in self._contents(self._volumes[mount["name"]]).items():
                file = self._mounts[mount["mountPath"]] / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)

    def placed(self, text: str) -> str:
        """Return a text with the paths in the container replaced by those here."""
        for path, here in sorted(self._mounts.items(), reverse=True):
            text = text.replace(path, str(here))
        return text

    def _contents(self, volume: Object) -> dict[str, bytes]:
        readers = {
            "configMap": self._of_config_map,
            "secret": self._of_secret,
            "serviceAccountToken": self._token,
        }
        found: dict[str, bytes] = {}
        for source in volume["projected"]["sources"] if "projected" in volume else [volume]:
            for kind, read in readers.items():
                if kind in source:
                    found |= self._read(read, source[kind])
        return found

    @staticmethod
    def _read(read: Callable[[Object], dict[str, bytes]], source: Object) -> dict[str, bytes]:
        try:
            return read(source)
        except CommandFailed as exc:
            if source.get("optional") and "NotFound" in str(exc):
                return {}
            raise

    def _of_config_map(self, source: Object) -> dict[str, bytes]:
        data = self._cluster.get("configmap", source["name"], namespace=self._namespace)["data"]
        return _chosen(source, {key: self.placed(text).encode() for key, text in data.items()})

    def _of_secret(self, source: Object) -> dict[str, bytes]:
        name = source.get("name") or source["secretName"]
        data = self._cluster.get("secret", name, namespace=self._namespace)["data"]
        return _chosen(source, {key: base64.b64decode(text) for key, text in data.items()})

    def _token(self, source: Object) -> dict[str, bytes]:
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={self._pod['metadata']['name']}")
        audience = (f"--audience={source['audience']}",) if "audience" in source else ()
        account = self._pod["spec"]["serviceAccountName"]
        text = self._cluster.kubectl("create", "token", account, f"-n={self._namespace}", *bound, *audience).stdout
        return {source["path"]: text.strip().encode()}


def _chosen(source: Object, data: dict[str, bytes]) -> dict[str, bytes]:
    items = source.get("items")
    return data if items is None else {item["path"]: data[item["key"]] for item in items}


def run(
    container: Object, *, files: Files, address: str, resolve: Callable[[str], str], log: Path
) -> subprocess.Popen[bytes]:
    """Start a container's process. `address` is the pod's here, `resolve` replaces names by addresses."""
    words = [*container.get("command", _ENTRYPOINT), *container.get("args", [] if "command" in container else _COMMAND)]
    command = [resolve(files.placed(word)) for word in words]
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= {each["name"]: files.placed(each["value"]) for each in container.get("env", ())}
    environment |= {"TASKGATE__SERVER__HOST": address, "TASKGATE__TELEMETRY__METRICS_HOST": address}
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable if word == "python" else word for word in command],
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            preexec_fn=die_with_parent,
        )
