"""Check and test the alerts with Prometheus' own promtool: `make test-alerts`."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.chart.alert_cases import CASES
from tests.chart.alert_series import as_promtool
from tests.chart.matrix import MONITORED
from tests.chart.rendering import render


def main() -> int:
    """Return promtool's exit status; 2 if it is not installed."""
    promtool = shutil.which("promtool")
    if promtool is None:
        print("promtool is not installed (Debian: apt-get install prometheus)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="alerts-") as name:
        folder = Path(name)
        spec = render(MONITORED).one("PrometheusRule")["spec"]
        (folder / "rules.yaml").write_text(yaml.safe_dump(spec))
        rules = {rule["alert"]: rule for group in spec["groups"] for rule in group["rules"] if "alert" in rule}
        for rule in rules.values():  # the texts are read by people; here it counts who fires, and when
            rule.pop("annotations", None)
        (folder / "bare.yaml").write_text(yaml.safe_dump(spec))
        commands = [["check", "rules", "rules.yaml"]]
        for interval in sorted({case.interval for case in CASES}):
            cases = [as_promtool(case, rules[case.alert]) for case in CASES if case.interval == interval]
            file = f"cases-{interval}.yaml"
            tests = {
                "rule_files": ["bare.yaml"],
                "evaluation_interval": interval,
                "group_eval_order": ["taskgate-slo", "taskgate"],
                "tests": cases,
            }
            (folder / file).write_text(yaml.safe_dump(tests))
            commands.append(["test", "rules", file])
        for arguments in commands:
            status = subprocess.run([promtool, *arguments], cwd=folder, check=False, timeout=120).returncode
            if status:
                return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
