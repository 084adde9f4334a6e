"""Errors of the sandbox's own parts; their texts say what to do.

SandboxError
├── NotInstalled     the embedded Valkey's package is missing
├── PortTaken        the port is already in use
└── NotStarted       a part ended, or was not ready in time
"""


class SandboxError(Exception):
    """The root: a part of the sandbox can't work."""


class NotInstalled(SandboxError):
    """The package with the embedded Valkey is missing."""


class PortTaken(SandboxError):
    """The address can't be listened on."""

    def __init__(self, *, host: str, port: int, reason: str) -> None:
        super().__init__(f"can't listen on {host} port {port}: {reason}")
        self.host = host
        self.port = port


class NotStarted(SandboxError):
    """A part ended during its start, or was not ready in time."""
