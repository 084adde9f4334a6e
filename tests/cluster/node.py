"""Stands in for a node where a cluster has none: says of each pod that it runs, or has run, as a kubelet would."""

import json
import threading
from datetime import UTC, datetime
from typing import Any, Self

from tests.cluster.cluster import Cluster, CommandFailed, Object

_EVERY_S = 0.2


class Node:
    """While it is open, pods of a namespace become ready, and those that are to end have ended well."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(_EVERY_S):
            for pod in self._cluster.all("pods", namespace=self._namespace):
                if pod["status"].get("phase", "Pending") == "Pending":
                    self._report(pod)

    def _report(self, pod: Object) -> None:
        options = (f"--namespace={self._namespace}", "--subresource=status", "--type=merge")
        patch = json.dumps({"status": _status(pod)})
        try:
            self._cluster.kubectl("patch", "pod", pod["metadata"]["name"], *options, f"--patch={patch}")
        except CommandFailed as exc:
            if "NotFound" not in str(exc):  # it was deleted in between
                raise


def _status(pod: Object) -> Object:
    ends = pod["spec"]["restartPolicy"] == "Never"
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    state: dict[str, Any] = (
        {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}
        if ends
        else {"running": {"startedAt": now}}
    )
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": not ends,
            "restartCount": 0,
            "state": state,
        }
        for container in pod["spec"]["containers"]
    ]
    conditions = {"Initialized": True, "PodScheduled": True, "ContainersReady": not ends, "Ready": not ends}
    return {
        "phase": "Succeeded" if ends else "Running",
        "startTime": now,
        "containerStatuses": containers,
        "conditions": [
            {"type": kind, "status": str(holds), "lastTransitionTime": now} for kind, holds in conditions.items()
        ],
    }
