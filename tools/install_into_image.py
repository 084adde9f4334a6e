"""Put the package into an environment as an installer would: `python install_into_image.py SOURCE ENVIRONMENT`.

Copy `service`, write the metadata that name the package and its version, and leave `taskgate` as the only script beside
Python's own: those of the dependencies serve nobody there. No build tool is needed.
"""

import runpy
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
    version = runpy.run_path(str(source / "service" / "__init__.py"))["__version__"]
    (packages,) = environment.glob("lib/python3.*/site-packages")
    shutil.copytree(source / "service", packages / "service")
    metadata = packages / f"{project['name']}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n")
    (metadata / "INSTALLER").write_text("image\n")
    for script in (environment / "bin").iterdir():
        if not script.name.startswith("python"):
            script.unlink()
    for name, target in project["scripts"].items():
        module, _, function = target.partition(":")
        script = environment / "bin" / name
        script.write_text(_SCRIPT.format(python=environment / "bin" / "python", module=module, function=function))
        script.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
