"""Make `service/web/docs/scalar.js.gz` from the npm package that `scalar.json` pins, or pin another version.

`python -m tools.scalar` checks the package's integrity and writes its browser build, compressed. With a version
(`python -m tools.scalar 1.77.0`) it pins that version first. Needs npm; nothing of the package is run.
"""

import argparse
import base64
import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "service" / "web" / "docs"
PIN = FOLDER / "scalar.json"


def main() -> int:
    """Write the file. Return 1 if npm's package is not the pinned one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version", nargs="?", help="pin this version")
    version = parser.parse_args().version
    pin: dict[str, Any] = json.loads(PIN.read_bytes())
    with tempfile.TemporaryDirectory() as directory:
        tarball = _npm_pack(pin["package"], version or pin["version"], Path(directory))
        integrity = f"sha512-{base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()}"
        if version is None and integrity != pin["integrity"]:
            print(f"{pin['package']} {pin['version']} has the integrity {integrity}, not the pinned", file=sys.stderr)
            return 1
        with tarfile.open(tarball) as archive:
            archive.extract(f"package/{pin['file']}", directory, filter="data")
        script = (Path(directory) / "package" / pin["file"]).read_bytes()
    (FOLDER / "scalar.js.gz").write_bytes(gzip.compress(script, 9, mtime=0))
    sha256 = hashlib.sha256(script).hexdigest()
    pin |= {"version": version or pin["version"], "integrity": integrity, "sha256": sha256}
    PIN.write_text(json.dumps(pin, indent=2) + "\n")
    return 0


def _npm_pack(package: str, version: str, directory: Path) -> Path:
    """Download a package with npm, unchanged, and return its path."""
    command = ("npm", "pack", "--silent", f"{package}@{version}", "--pack-destination", str(directory))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (tarball,) = directory.iterdir()
    return tarball


if __name__ == "__main__":
    sys.exit(main())
