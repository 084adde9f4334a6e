"""`taskgate key`: a new key for a caller."""

import hashlib
import re
import secrets
import sys
from datetime import UTC, datetime, timedelta

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)


def run(name: str) -> int:
    """Print a new random 256-bit key and the settings that admit it; the key is not stored anywhere."""
    if not _NAME.fullmatch(name):
        print("taskgate key: a name has up to 63 characters: a-z, 0-9, dot, dash and underscore", file=sys.stderr)
        return 2
    until = (datetime.now(UTC) + timedelta(days=30)).date()
    key = f"tg_{secrets.token_urlsafe(32)}"
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    print(f"""# The key, for {name}. It is shown only now and stored nowhere:
{key}

# Add this to the configuration:
callers:
  {name}:
    keys: ["{sha256}"]
    apps: []  # names of the apps that {name} may read

# If {name} has a key already, add the new one beside it, and let the old one end:
#   keys:
#     - "{sha256}"
#     - {{sha256: "the old key's", until: {until}}}  # a day (until it begins, UTC) or an instant""")
    return 0
