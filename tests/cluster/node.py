"""Stands in for a node in a cluster without any: runs the pods of a namespace as processes of this machine."""

import json
import os
import re
import subprocess
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from tests.cluster.cluster import Cluster, CommandFailed, Object
from tests.cluster.pod import Files, run

_EVERY_S = 0.2
_PROBE_S = 1.0
_URL = re.compile(r"//([a-z0-9-]+):([0-9]+)")


class Node:
    """While it is open, pods run, become ready by their own probe, and end. Its addresses exist in this process
    only."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._folder = folder
        self._name = f"stand-in-{namespace}"
        self._network = f"{1 + os.getpid() % 200}.{os.getpid() // 200 % 200}"
        self._started: dict[str, _Running] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node")
        self.faults: list[Exception] = []

    def __enter__(self) -> Self:
        named = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self._name}}
        self._cluster.kubectl("create", "--filename=-", stdin=json.dumps(named))
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._thread.join()
        self._cluster.kubectl("delete", "node", self._name)
        assert not self.faults, self.faults

    def log(self, pod: str) -> str:
        """Return the output of the pod's process."""
        return (self._folder / pod / "log").read_text()

    def _run(self) -> None:
        try:
            while not self._closing.wait(_EVERY_S):
                self._look()
        except Exception as exc:  # noqa: BLE001 - reported where the node is closed
            self.faults.append(exc)
        for running in self._started.values():
            running.process.kill()
            running.process.wait()

    def _look(self) -> None:
        for pod in self._cluster.all("pods", namespace=self._namespace):
            name = pod["metadata"]["name"]
            running = self._started.get(name)
            if "deletionTimestamp" in pod["metadata"]:
                if running is None or running.has_ended():
                    self._quietly("delete", "pod", name, "--grace-period=0", "--force", "--wait=false")
            elif running is None:
                self._start(name, pod)
            elif (status := running.status(pod)) is not None:
                patch = json.dumps({"status": status})
                self._quietly("patch", "pod", name, "--subresource=status", "--type=merge", f"--patch={patch}")

    def _start(self, name: str, pod: Object) -> None:
        number = len(self._started) + 1
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        address = f"127.{self._network}.{number}"
        container = pod["spec"]["containers"][0]
        files = Files(self._cluster, pod, folder)
        try:
            files.mount(container)
            self._bind(name)
        except CommandFailed as exc:
            if "NotFound" not in str(exc):
                raise
            return  # a volume or the pod does not exist yet: retry
        process = run(container, files=files, address=address, resolve=self.resolved, log=folder / "log")
        self._started[name] = _Running(process, container, address=address, ip=f"10.{self._network}.{number}")

    def resolved(self, text: str) -> str:
        """Replace the names of Services by the address of a ready pod, according to the cluster's endpoints."""
        return _URL.sub(lambda found: f"//{self._endpoint(found[1], int(found[2])) or f'{found[1]}:{found[2]}'}", text)

    def _endpoint(self, service: str, port: int) -> str | None:
        services = {each["metadata"]["name"]: each for each in self._cluster.all("services", namespace=self._namespace)}
        if service not in services:
            return None
        (name,) = [each.get("name") for each in services[service]["spec"]["ports"] if each["port"] == port]
        selector = f"kubernetes.io/service-name={service}"
        for slice_ in self._cluster.all("endpointslices", namespace=self._namespace, selector=selector):
            ready = [each["addresses"][0] for each in slice_["endpoints"] or () if each["conditions"]["ready"]]
            ports = [each["port"] for each in slice_["ports"] or () if each["name"] == name]
            if ready and ports:
                return f"127.{ready[0].removeprefix('10.')}:{ports[0]}"
        return None

    def _bind(self, name: str) -> None:
        """Bind the pod, as the Kubernetes scheduler would."""
        target = {"apiVersion": "v1", "kind": "Node", "name": self._name}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        path = f"/api/v1/namespaces/{self._namespace}/pods/{name}/binding"
        self._cluster.kubectl("create", f"--raw={path}", "--filename=-", stdin=json.dumps(binding))

    def _quietly(self, *command: str) -> None:
        try:
            self._cluster.kubectl(*command, f"--namespace={self._namespace}")
        except CommandFailed as exc:
            if "NotFound" not in str(exc):  # it was deleted in between
                raise


class _Running:
    """A container's process, and its last reported state."""

    def __init__(self, process: subprocess.Popen[bytes], container: Object, *, address: str, ip: str) -> None:
        self.process = process
        self._container = container
        self._address = address
        self._ip = ip
        self._reported: tuple[int | None, bool] | None = None
        self._started_at = _now()
        self._is_ending = False

    def has_ended(self) -> bool:
        """Ask the process to end, and return whether it has."""
        if self.process.poll() is None and not self._is_ending:
            self.process.terminate()
            self._is_ending = True
        return self.process.poll() is not None

    def status(self, pod: Object) -> Object | None:
        """Return the pod's status if it has changed."""
        code = self.process.poll()
        found = (code, code is None and self._is_ready())
        if found == self._reported:
            return None
        self._reported = found
        return self._status(pod, *found)

    def _is_ready(self) -> bool:
        probe = self._container.get("readinessProbe")
        if probe is None:
            return True
        asked = probe["httpGet"]
        (port,) = [each["containerPort"] for each in self._container["ports"] if each["name"] == asked["port"]]
        try:
            with urllib.request.urlopen(f"http://{self._address}:{port}{asked['path']}", timeout=_PROBE_S) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _status(self, pod: Object, code: int | None, is_ready: bool) -> Object:
        state: dict[str, Any] = {"running": {"startedAt": self._started_at}}
        if code is not None:
            state = {"terminated": {"exitCode": code, "startedAt": self._started_at, "finishedAt": _now()}}
        containers = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": is_ready,
                "restartCount": 0,
                "state": state,
            }
            for container in pod["spec"]["containers"]
        ]
        conditions = {"Initialized": True, "PodScheduled": True, "ContainersReady": is_ready, "Ready": is_ready}
        return {
            "phase": "Running" if code is None else "Failed" if code else "Succeeded",
            "startTime": self._started_at,
            "podIP": self._ip,
            "podIPs": [{"ip": self._ip}],
            "containerStatuses": containers,
            "conditions": [
                {"type": kind, "status": str(holds), "lastTransitionTime": _now()} for kind, holds in conditions.items()
            ],
        }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
