"""Find and load the configuration for a command, and print its faults."""

import os
import sys

from service.configuration import ConfigurationError, LoadedSettings, load

VARIABLE = "TASKGATE_CONFIG"
_NONE = f"""taskgate: no configuration.
Set {VARIABLE} to the path of a YAML file (docs/taskgate.example.yaml is one), or use --config.
To try Taskgate without one, run `taskgate demo`."""


def load_config(path: str | None, *, print_warnings: bool = True) -> LoadedSettings | None:
    """Return the configuration at `path`, or at TASKGATE_CONFIG. If it has faults, print them and return None."""
    path = path or os.environ.get(VARIABLE)
    if not path:
        print(_NONE, file=sys.stderr)
        return None
    try:
        loaded = load(path, os.environ)
    except ConfigurationError as exc:
        for fault in exc.faults:
            print(fault, file=sys.stderr)
        return None
    for warning in loaded.warnings if print_warnings else ():
        print(f"warning: {warning}", file=sys.stderr)
    os.environ[VARIABLE] = path
    return loaded
