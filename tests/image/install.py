"""Puts the package into an environment as an installer would: `python install.py SOURCE ENVIRONMENT`.

Copies `service`, and writes the metadata that tell the version and the script `taskgate`. No build tool is needed.
"""

import shutil
import sys
import tomllib
from pathlib import Path

_SCRIPT = """#!{python}
import sys

from {module} import {function}

sys.exit({function}())
"""


def main(source: Path, environment: Path) -> None:
    """Install."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    (packages,) = environment.glob("lib/python3.*/site-packages")
    shutil.copytree(source / "service", packages / "service")
    metadata = packages / f"{project['name']}-{project['version']}.dist-info"
    metadata.mkdir()
    lines = [f"{key}: {project[key.lower()]}" for key in ("Name", "Version")]
    (metadata / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines, ""]))
    (metadata / "INSTALLER").write_text("image\n")
    for name, target in project["scripts"].items():
        module, _, function = target.partition(":")
        script = environment / "bin" / name
        script.write_text(_SCRIPT.format(python=environment / "bin" / "python", module=module, function=function))
        script.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
