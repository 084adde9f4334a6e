"""`taskgate key`: a new key for a caller."""

import hashlib
import re
import secrets
import sys

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)


def run(name: str) -> int:
    """Print a new random key (256 bits), once, and the settings that let it in."""
    if not _NAME.fullmatch(name):
        print("taskgate key: a name has up to 63 of a-z, 0-9, dot, dash and underscore", file=sys.stderr)
        return 2
    key = f"tg_{secrets.token_urlsafe(32)}"
    print(f"""# The key, for {name}. It is shown this once and kept nowhere:
{key}

# What goes into the configuration:
callers:
  {name}:
    keys: ["{hashlib.sha256(key.encode()).hexdigest()}"]
    apps: []  # names of the apps that {name} may read""")
    return 0
