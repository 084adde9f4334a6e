"""The configuration that the chart renders is accepted by the gateway, with the files of the pod."""

import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import certifi
import msgspec
import pytest
import yaml

from service.__main__ import main
from service.configuration import load
from tests.chart.matrix import MATRIX, TRYING
from tests.chart.rendering import GONE, Rendered, Values, merged, render
from tests.scenes.fleet import Replica
from tests.servers import Server


def lay_out(rendered: Rendered, root: Path) -> Path:
    """The files of the pod below `root`, each Secret's value being its key's name; returns taskgate.yaml."""
    volumes = {volume["name"]: volume for volume in rendered.pod["spec"]["volumes"]}
    for mount in rendered.container["volumeMounts"]:
        volume, folder = volumes[mount["name"]], root / mount["mountPath"].lstrip("/")
        folder.mkdir(parents=True)
        if volume.get("configMap", {}).get("name") == "tg-taskgate":
            for name, text in rendered.one("ConfigMap")["data"].items():
                (folder / name).write_text(text.replace("/run/secrets", f"{root}/run/secrets"))
        for source in volume.get("projected", {}).get("sources", ()):
            for item in (source.get("secret") or source.get("configMap", {})).get("items", ()):
                file = folder / item["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(_CONTENT.get(file.suffix, "0123456789abcdef" * 4))
    return root / _environment(rendered)["TASKGATE_CONFIG"].lstrip("/")


_CONTENT = {".crt": Path(certifi.where()).read_text(), ".key": "-----BEGIN PRIVATE KEY-----"}


def _environment(rendered: Rendered) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "0123456789abcdef") for entry in rendered.container["env"]}


@pytest.mark.parametrize("patch", MATRIX.values(), ids=MATRIX)
def test_taskgate_check_accepts_it(
    patch: Values, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway accepts every value that the schema accepts, and finds the secrets at their paths."""
    rendered = render(patch)
    for name, value in _environment(rendered).items():
        monkeypatch.setenv(name, value)
    status = main(["check", str(lay_out(rendered, tmp_path))])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert printed.out.startswith("ok: ")


@pytest.mark.parametrize("patch", MATRIX.values(), ids=MATRIX)
def test_the_gateway_reads_the_configuration_in_the_values(patch: Values, tmp_path: Path) -> None:
    """No part of `config` is lost or changed on the way, especially not large numbers."""
    rendered = render(patch)
    settings = msgspec.to_builtins(load(lay_out(rendered, tmp_path), _environment(rendered)).settings)

    def held(wanted: Any, got: Any, path: str) -> None:
        if isinstance(wanted, dict):
            for name, inner in wanted.items():
                held(inner, got[name], f"{path}.{name}")
        else:
            assert got == (tuple(wanted) if isinstance(got, tuple) else wanted), path

    held(merged(patch)["config"], settings, "config")


SHARED: Values = {"config": {"budget": {"on_redis_down": "share", "calls": 20}}}


@pytest.mark.parametrize(
    ("patch", "replicas"),
    [
        ({}, 2),
        ({"replicaCount": 4}, 4),
        (MATRIX["autoscaled"], 7),
        (MATRIX["autoscaled"] | {"replicaCount": 9}, 7),
        ({"config": {"budget": {"max_replicas": 12}}}, 12),
        ({"replicaCount": None, "config": {"budget": {"max_replicas": 12}}}, 12),
    ],
)
def test_max_replicas_follows_the_setting_the_autoscaler_or_the_count(patch: Values, replicas: int) -> None:
    """`share` divides by the largest possible number of replicas."""
    assert yaml.safe_load(render(SHARED, patch).config)["budget"]["max_replicas"] == replicas


def test_without_share_the_number_of_replicas_is_not_in_the_configuration() -> None:
    """Without `share`, scaling by hand does not restart pods."""
    assert "max_replicas" not in yaml.safe_load(render().config)["budget"]


def test_the_gateway_listens_on_the_ports_of_the_pod(tmp_path: Path) -> None:
    """The chart overrides defaults that suit a laptop: loopback, and no metrics."""
    settings = load(lay_out(render(), tmp_path), {}).settings
    assert (settings.server.host, settings.server.port) == ("0.0.0.0", 8000)  # noqa: S104 - in a pod
    assert (settings.telemetry.metrics_host, settings.telemetry.metrics_port) == ("0.0.0.0", 9090)  # noqa: S104


def test_the_trial_valkey_is_reachable_by_the_gateway() -> None:
    """redis.url names the Service of that Valkey, by its port, and both policies let it through."""
    rendered = render(TRYING)
    service = rendered.one("Service", "tg-taskgate-valkey")
    url = yaml.safe_load(rendered.config)["redis"]["url"]
    assert url == f"redis://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/0"
    out = rendered.one("NetworkPolicy")["spec"]["egress"][1]
    assert out["ports"] == [{"port": 6379, "protocol": "TCP"}]
    valkey = rendered.one("NetworkPolicy", "tg-taskgate-valkey")["spec"]
    assert out["to"][0]["podSelector"] == valkey["podSelector"]


async def test_the_rendered_gateway_runs_and_passes_its_own_helm_test(valkey: Server, tmp_path: Path) -> None:
    """A gateway with the chart's configuration starts, serves metrics and passes `helm test`, which fails without
    Redis.
    """
    patch: Values = {
        "config": {
            "redis": {"url": valkey.url},
            "apps": {"shop": {"base_url": "http://127.0.0.1:9"}},
        }
    }
    rendered = render(patch)
    file = lay_out(rendered, tmp_path)
    file.write_text(file.read_text().replace("0.0.0.0", "127.0.0.1"))  # noqa: S104 - in a pod
    replica = Replica(file, tmp_path / "log")
    replica.start()
    try:
        await replica.ready()
        with urllib.request.urlopen(f"http://127.0.0.1:{replica.metrics_port}/metrics", timeout=5) as answer:  # noqa: ASYNC210
            assert b"taskgate_ready 1.0" in answer.read()
        assert _helm_test(rendered, replica.port) == (0, "")
    finally:
        replica.end()
    status, answer = _helm_test(rendered, replica.port)
    assert status != 0
    assert "refused" in answer


def _helm_test(rendered: Rendered, port: int) -> tuple[int, str]:
    """Run the command of the `helm test` pod against this port; return its exit status and its complaints."""
    container = rendered.one("Pod", "tg-taskgate-test")["spec"]["containers"][0]
    assert container["command"] == ["python", "-c"]
    script, url = container["args"]
    assert url == "http://tg-taskgate:80/readyz"
    run = subprocess.run(
        [sys.executable, "-c", script, f"http://127.0.0.1:{port}/readyz"],
        env=os.environ | {"no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return run.returncode, run.stderr


def _yaml_of_the_docs() -> list[str]:
    text = (Path(__file__).parents[2] / "docs" / "deploying.md").read_text()
    return [part.partition("\n```")[0] for part in text.split("```yaml\n")[1:]]


def test_the_example_in_the_docs_can_be_installed() -> None:
    """The values in docs/deploying.md render, without any other values."""
    blocks = [block for block in _yaml_of_the_docs() if block.startswith("# values.yaml\n")]
    assert blocks
    for block in blocks:
        values = yaml.safe_load(block)
        nothing_else = {"config": {"apps": {"shop": GONE}, "callers": {"reports": GONE}, "redis": {"url": GONE}}}
        assert render(nothing_else, {"secrets": {"apps": {"shop": GONE}}}, values).objects


def test_every_other_piece_of_values_in_the_docs_can_be_added() -> None:
    """The chart accepts each piece, together with the smallest set of values."""
    pieces = [yaml.safe_load(block) for block in _yaml_of_the_docs()]
    values = [piece for piece in pieces if "apiVersion" not in piece]
    assert len(values) >= 4
    for piece in values:
        assert render(piece).objects
