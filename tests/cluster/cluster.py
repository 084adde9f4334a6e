"""A cluster as its clients see it: kubectl and Helm, each run as a process."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from tests.servers import eventually

_COMMAND_S = 180.0
Object = dict[str, Any]


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """A command's output, and the API server's warnings in it."""

    stdout: str
    stderr: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the lines in which a client repeats the API server's warnings."""
        return tuple(line for line in self.stderr.splitlines() if "warning" in line.lower())


class CommandFailed(Exception):
    """A command failed; the message holds its output."""


class AlreadyThere(CommandFailed):
    """The object to create already exists."""


class Cluster:
    """One cluster, as `kubeconfig` reaches it, by the programs in a folder."""

    def __init__(self, *, kubeconfig: Path, programs: Path, scratch: Path) -> None:
        self._programs = programs
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HELM_")},
            "KUBECONFIG": str(kubeconfig),
            "HELM_CACHE_HOME": str(scratch / "cache"),
            "HELM_CONFIG_HOME": str(scratch / "config"),
            "HELM_DATA_HOME": str(scratch / "data"),
        }

    @property
    def url(self) -> str:
        """The URL of the API server for clients outside the cluster."""
        path = "{.clusters[0].cluster.server}"
        return self.kubectl("config", "view", "--minify", f"-o=jsonpath={path}").stdout.strip()

    @property
    def issuer(self) -> str:
        """The issuer of the tokens of service accounts."""
        document: Object = json.loads(self.kubectl("get", "--raw=/.well-known/openid-configuration").stdout)
        return str(document["issuer"])

    def token(self, account: str, *, namespace: str, audience: str | None = None) -> str:
        """Return a new token of a service account (TokenRequest), for an audience or for the API server itself."""
        options = () if audience is None else (f"--audience={audience}",)
        return self.kubectl("create", "token", account, f"--namespace={namespace}", *options).stdout.strip()

    def kubectl(self, *arguments: str, stdin: str | None = None) -> Output:
        """Run kubectl. Raise CommandFailed."""
        return self._run("kubectl", arguments, stdin)

    def helm(self, version: int, *arguments: str, stdin: str | None = None) -> Output:
        """Run Helm 3 or 4. Raise CommandFailed."""
        return self._run(f"helm{version}", arguments, stdin)

    def create(self, *objects: Object, namespace: str, dry_run: bool = False) -> Output:
        """Create objects, with unknown and repeated fields refused. Raise CommandFailed."""
        options = ["--validate=strict", *(["--dry-run=server"] if dry_run else [])]
        text = "\n".join(json.dumps(made) for made in objects)
        return self.kubectl("create", "--namespace", namespace, *options, "--filename=-", stdin=text)

    def ensure(self, made: Object) -> None:
        """Create an object without a namespace, unless one of its name exists."""
        with suppress(AlreadyThere):
            self.kubectl("create", "--filename=-", stdin=json.dumps(made))

    def get(self, kind: str, name: str, *, namespace: str) -> Object:
        """Return one object. Raise CommandFailed if it does not exist."""
        found: Object = json.loads(self.kubectl("get", kind, name, f"--namespace={namespace}", "-o=json").stdout)
        return found

    def all(self, kind: str, *, namespace: str, selector: str = "") -> Sequence[Object]:
        """Return all objects of a kind with these labels."""
        options = (f"--namespace={namespace}", f"--selector={selector}", "-o=json")
        items: list[Object] = json.loads(self.kubectl("get", kind, *options).stdout)["items"]
        return items

    def has_nodes(self) -> bool:
        """Return whether the cluster has a node."""
        return bool(json.loads(self.kubectl("get", "nodes", "-o=json").stdout)["items"])

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition of the cluster holds."""
        eventually(condition, within_s=_COMMAND_S)

    def _run(self, program: str, arguments: Sequence[str], stdin: str | None) -> Output:
        done = subprocess.run(
            [self._programs / program, *arguments],
            input=stdin or "",
            env=self._environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
        )
        if done.returncode:
            kind = AlreadyThere if "(AlreadyExists)" in done.stderr else CommandFailed
            raise kind(f"{program} {' '.join(arguments)}: {done.stderr or done.stdout}")
        return Output(stdout=done.stdout, stderr=done.stderr)
