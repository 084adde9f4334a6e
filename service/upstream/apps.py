"""An application as known to the upstream, built from its settings."""

from urllib.parse import urlsplit

import msgspec

from service.settings import AppSettings
from service.upstream.regions import hosts, region_of


class UpstreamApp(msgspec.Struct, frozen=True, kw_only=True):
    """One app: its identity in calls, and its base URLs without a trailing slash, the preferred one first."""

    name: str
    sdkappid: int
    admin: str
    hosts: tuple[str, ...]

    @property
    def speaks_tls(self) -> bool:
        """Whether any of its base URLs is https://."""
        return any(urlsplit(host).scheme == "https" for host in self.hosts)


def upstream_app_of(name: str, settings: AppSettings, *, backup_hosts: bool) -> UpstreamApp:
    """Return the app described by the settings; an explicit base URL has no backup.

    The region defaults to that of the SDKAppID's range. Raise ValueError with a text for the operator if the region is
    unknown or the base URL is invalid.
    """
    if settings.base_url is not None:
        bases: tuple[str, ...] = (checked_base_url(settings.base_url),)
    else:
        region = settings.region or region_of(settings.sdkappid)
        bases = tuple(f"https://{host}" for host in hosts(region, backup=backup_hosts))
    return UpstreamApp(name=name, sdkappid=settings.sdkappid, admin=settings.admin, hosts=bases)


def checked_base_url(base_url: str) -> str:
    """Return a base URL without a trailing slash. Raise ValueError if it is invalid."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("a base URL must start with https:// or http://")
    if not parts.hostname or parts.port == 0:  # reading the port raises ValueError if it is out of range
        raise ValueError("a base URL must name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a base URL must not contain a user or a password")
    if "?" in base_url or "#" in base_url:
        raise ValueError("a base URL must not contain a query or a fragment")
    if any(not 0x20 < ord(char) < 0x7F for char in base_url):
        raise ValueError("a base URL must be printable ASCII; write other host names in Punycode")
    return base_url.rstrip("/")
