"""Connection targets and TLS settings, parsed once from the configuration."""

import ssl
from base64 import b64encode
from typing import Literal
from urllib.parse import urlsplit

import certifi
import msgspec


class HttpOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """A host to connect to."""

    scheme: Literal["http", "https"]
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The value of `Host`: without the port if it is the scheme's default (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"

    @property
    def host_and_port(self) -> str:
        """The target of CONNECT (RFC 9110, 9.3.6)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class HttpProxy(msgspec.Struct, frozen=True, kw_only=True):
    """A forward proxy, and the value of `Proxy-Authorization` for it: a secret; None if it needs none."""

    origin: HttpOrigin
    authorization: str | None = None

    def fields(self) -> tuple[tuple[str, str], ...]:
        """Return the header fields for the proxy itself."""
        return () if self.authorization is None else (("proxy-authorization", self.authorization),)


def proxy_of(url: str, *, username: str | None, password: str | None) -> HttpProxy:
    """Return the proxy at a URL, with credentials (RFC 7617) if there are any. Raise ValueError for a bad URL."""
    if username is None or password is None:
        return HttpProxy(origin=origin_of(url))
    token = b64encode(f"{username}:{password}".encode()).decode()
    return HttpProxy(origin=origin_of(url), authorization=f"Basic {token}")


def origin_of(url: str) -> HttpOrigin:
    """Return the origin of an http:// or https:// URL. Raise ValueError for any other."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected http://HOST or https://HOST")
    port = (443 if parts.scheme == "https" else 80) if parts.port is None else parts.port
    return HttpOrigin(scheme="https" if parts.scheme == "https" else "http", host=parts.hostname, port=port)


def target_of(url: str) -> str:
    """Return path and query of a URL: the target in a request line."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Return the TLS context: trust only `ca_file`, or without one the CAs of certifi.

    Nothing is taken from the environment. Raise OSError if the file can't be read, ssl.SSLError (a subclass) if it
    holds no certificate.
    """
    context = ssl.create_default_context(cafile=ca_file or certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context
