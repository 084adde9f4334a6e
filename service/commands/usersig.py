"""`taskgate usersig`: a signature for calling the upstream by hand."""

import os
import sys
import time

from service.commands.config_file import load_config
from service.model.queries import rfc3339


def run(app: str, config: str | None) -> int:
    """Print the signature on stdout, and its owner and validity on stderr."""
    loaded = load_config(config)
    if loaded is None:
        return 2
    settings = loaded.settings.apps.get(app)
    if settings is None:
        print(f"taskgate usersig: no app {app!r}; known apps: {', '.join(loaded.settings.apps)}", file=sys.stderr)
        return 2
    from service.upstream.secret import secret_of
    from service.upstream.usersig import sign

    now_s, valid_s = int(time.time()), loaded.settings.upstream.signature_valid_s
    key = secret_of(settings, os.environ).read(0.0)
    print(sign(sdkappid=settings.sdkappid, admin=settings.admin, key=key, issued_at_s=now_s, valid_s=valid_s))
    until = rfc3339(now_s + valid_s)
    print(f"for {settings.admin} of {settings.sdkappid}, valid {valid_s} s, until {until}", file=sys.stderr)
    return 0
