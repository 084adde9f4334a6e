"""Checks and tests the alerts with Prometheus' own promtool: `make test-alerts`."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.chart.alert_cases import CASES, as_promtool
from tests.chart.matrix import MONITORED
from tests.chart.rendering import render


def main() -> int:
    """Returns promtool's status; 2 where there is none."""
    promtool = shutil.which("promtool")
    if promtool is None:
        print("promtool is not installed (Debian: apt-get install prometheus)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="alerts-") as name:
        folder = Path(name)
        spec = render(MONITORED).one("PrometheusRule")["spec"]
        (folder / "rules.yaml").write_text(yaml.safe_dump(spec))
        rules = {rule["alert"]: rule for group in spec["groups"] for rule in group["rules"]}
        for rule in rules.values():  # the texts are read by people; here it counts who fires, and when
            rule.pop("annotations")
        (folder / "bare.yaml").write_text(yaml.safe_dump(spec))
        cases = [as_promtool(case, rules[case.alert]) for case in CASES]
        (folder / "cases.yaml").write_text(yaml.safe_dump({"rule_files": ["bare.yaml"], "tests": cases}))
        for arguments in (["check", "rules", "rules.yaml"], ["test", "rules", "cases.yaml"]):
            status = subprocess.run([promtool, *arguments], cwd=folder, check=False, timeout=120).returncode
            if status:
                return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
