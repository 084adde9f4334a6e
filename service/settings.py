"""Every setting, with its unit, default and bounds. `service.configuration` reads them from file and environment."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from service.model.freshness import Lifetimes

Name = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?\Z",
        description="a name of at most 63 characters: a-z, 0-9, dot, dash, underscore; a letter or digit at both ends",
    ),
]
Sha256 = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{64}\Z",
        description="64 lower-case hex digits, the SHA-256 of a key; `taskgate key` makes one",
    ),
]
Account = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z",
        description="NAMESPACE/NAME of a service account",
    ),
]
Network = Annotated[
    str,
    Meta(
        pattern=r"^[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?\Z",
        description="an IP network in CIDR notation, such as 10.0.0.0/8",
    ),
]
Positive = Annotated[float, Meta(gt=0, le=86_400 * 365)]
Port = Annotated[int, Meta(ge=1, le=65_535)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of all sections; rejects unknown keys."""


class AppSettings(_Section, frozen=True, kw_only=True):
    """One upstream application. The secret is never inline: it is in a file or in an environment variable."""

    sdkappid: Annotated[int, Meta(ge=1, le=4_294_967_295)]
    admin: Annotated[str, Meta(min_length=1, max_length=32)]
    region: str | None = None
    base_url: str | None = None
    secret_file: str | None = None
    secret_env: str | None = None
    calls: Annotated[int, Meta(ge=1, le=1000)] | None = None
    get_calls: Annotated[int, Meta(ge=1, le=1000)] | None = None


class BudgetSettings(_Section, frozen=True, kw_only=True):
    """How many calls each app may make, and how long callers may wait for one.

    Lists have `calls` in any `window_s`; single tasks have a budget of their own, `get_calls` in any `get_window_s`.
    """

    calls: Annotated[int, Meta(ge=1, le=1000)] = 5
    window_s: Annotated[float, Meta(gt=0, le=3600)] = 1.0
    get_calls: Annotated[int, Meta(ge=1, le=1000)] = 5
    get_window_s: Annotated[float, Meta(gt=0, le=3600)] = 1.0
    transit_s: Annotated[float, Meta(ge=0.01, le=60)] = 0.5
    turn_lease_s: Annotated[float, Meta(ge=0.05, le=10)] = 0.3
    pause_s: Annotated[float, Meta(gt=0, le=600)] = 1.0
    pause_max_s: Annotated[float, Meta(gt=0, le=600)] = 60.0
    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    wait_default_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    wait_max_s: Annotated[float, Meta(ge=0, le=3600)] = 30.0
    waiting_max: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    redis_grace_s: Annotated[float, Meta(ge=0, le=60)] = 2.0
    on_redis_down: Literal["closed", "share"] = "closed"
    max_replicas: Annotated[int, Meta(ge=1, le=1000)] = 1


class CacheSettings(_Section, frozen=True, kw_only=True):
    """The size of blocks, and how long they may be served."""

    block_size: Annotated[int, Meta(ge=1, le=1000)] = 100
    align_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    fresh_s: Positive = 15.0
    settled_s: Positive = 600.0
    stale_while_revalidate_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    stale_if_error_s: Annotated[float, Meta(ge=0, le=86_400 * 7)] = 3600.0
    refusal_s: Positive = 60.0
    memory_bytes: Annotated[int, Meta(ge=0)] = 64 * 1024 * 1024
    answers_bytes: Annotated[int, Meta(ge=0)] = 16 * 1024 * 1024
    caller_blocks_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    ahead: bool = True

    @property
    def lifetimes(self) -> Lifetimes:
        """Return how long stored blocks may be served."""
        return Lifetimes(
            fresh_s=self.fresh_s,
            settled_s=self.settled_s,
            refusal_s=self.refusal_s,
            stale_while_revalidate_s=self.stale_while_revalidate_s,
            stale_if_error_s=self.stale_if_error_s,
        )


class RedisSettings(_Section, frozen=True, kw_only=True):
    """The address of Redis or Valkey; `url` is redis://, rediss:// (the files are for TLS) or unix://."""

    url: str
    mode: Literal["single", "sentinel", "cluster"] = "single"
    sentinel_master: str = "mymaster"
    username: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    password_file: str | None = None
    password_env: str | None = None
    sentinel_password_file: str | None = None
    sentinel_password_env: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    prefix: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9._-]{1,32}\Z", description="1 to 32 letters, digits, dots, dashes, underscores")
    ] = "taskgate"
    timeout_s: Annotated[float, Meta(ge=0.01, le=30)] = 0.25
    connections: Annotated[int, Meta(ge=1, le=1000)] = 32


class UpstreamSettings(_Section, frozen=True, kw_only=True):
    """How to call the upstream. `connections` is per host of an app.

    `proxy_url` is a forward proxy, http://HOST:PORT, with Basic authentication if there is a `proxy_username`;
    `ca_file` holds the CAs to trust instead of the public ones. Neither is ever taken from the environment.
    `unknown_task_codes` are the error codes of `get_sched_task` that mean that there is no such task; the vendor
    documents none.
    """

    connect_timeout_s: Positive = 2.0
    read_timeout_s: Positive = 5.0
    call_timeout_s: Positive = 8.0
    answer_max_bytes: Annotated[int, Meta(ge=1024)] = 2 * 1024 * 1024
    connections: Annotated[int, Meta(ge=1, le=1000)] = 16
    proxy_url: str | None = None
    proxy_username: (
        Annotated[str, Meta(pattern=r"^[!-9;-~]{1,255}\Z", description="a user name in ASCII without colon and space")]
        | None
    ) = None
    proxy_password_file: str | None = None
    proxy_password_env: str | None = None
    ca_file: str | None = None
    order_by: Literal["lower", "camel"] = "lower"
    unknown_task_codes: Annotated[tuple[Annotated[int, Meta(ge=1, le=999_999)], ...], Meta(max_length=20)] = (90106,)
    backup_hosts: bool = True
    signature_valid_s: Annotated[int, Meta(ge=300, le=50 * 365 * 86_400)] = 60 * 86_400
    stopped_s: Positive = 60.0


class QuerySettings(_Section, frozen=True, kw_only=True):
    """The defaults of a query, and how far it may reach.

    `range_max_days` is the longest range that the upstream accepts; a stream reads a longer one in up to about
    `stream_max_parts` parts.
    """

    since: str = "-P30D"
    until: str = "P30D"
    range_max_days: Annotated[int, Meta(ge=1)] | None = None
    filter_max_blocks: Annotated[int, Meta(ge=1, le=100)] = 10
    stream_max_parts: Annotated[int, Meta(ge=1, le=10_000)] = 100
    stream_max_tasks: Annotated[int, Meta(ge=1000, le=1_000_000_000)] = 1_000_000


class WatchSettings(_Section, frozen=True, kw_only=True):
    """Lists watched as server-sent events."""

    blocks_max: Annotated[int, Meta(ge=1, le=1000)] = 20
    watchers_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    caller_watchers_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    versions_max: Annotated[int, Meta(ge=2, le=1000)] = 16
    memory_bytes: Annotated[int, Meta(ge=1024)] = 24 * 1024 * 1024
    resume_s: Annotated[float, Meta(ge=1, le=86_400)] = 300.0
    idle_s: Annotated[float, Meta(ge=1, le=3600)] = 15.0


class ServerSettings(_Section, frozen=True, kw_only=True):
    """Where the gateway listens, how it shuts down and how it logs (`auto`: console on a terminal, else JSON).

    `trusted_proxies` are believed in `X-Forwarded-For`, for logs and traces alone.
    """

    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    port: Port = 8000
    backlog: Annotated[int, Meta(ge=128, le=65_535)] = 1024
    connections_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 2048
    unsent_max_bytes: Annotated[int, Meta(ge=1024 * 1024)] = 64 * 1024 * 1024
    headers_max_bytes: Annotated[int, Meta(ge=8192, le=1024 * 1024)] = 64 * 1024
    headers_timeout_s: Annotated[float, Meta(ge=0.1, le=600)] = 10.0
    idle_timeout_s: Annotated[float, Meta(ge=0.1, le=3600)] = 75.0
    reader_timeout_s: Annotated[float, Meta(ge=0.1, le=3600)] = 300.0
    trusted_proxies: tuple[Network, ...] = ()
    drain_s: Annotated[float, Meta(ge=0, le=600)] = 35.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"


class TelemetrySettings(_Section, frozen=True, kw_only=True):
    """Where to expose metrics (`metrics_port` null: nowhere) and send traces (`otlp_endpoint` null: nowhere)."""

    metrics_host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    metrics_port: Port | None = None
    otlp_endpoint: (
        Annotated[str, Meta(pattern=r"^https?://[^\s@?#]+\Z", description="an http:// or https:// URL")] | None
    ) = None
    send_traceparent: bool = False


class KeySettings(_Section, frozen=True, kw_only=True):
    """A key that expires: valid until an instant, or until a day begins (UTC)."""

    sha256: Sha256
    until: str | None = None


class PolicySettings(_Section, frozen=True, kw_only=True):
    """What a caller may do. Limits that are null default to those of the budget."""

    apps: tuple[Name, ...]
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    waiting_max: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    wait_max_s: Annotated[float, Meta(ge=0, le=3600)] | None = None
    may_force: bool = True
    operator: bool = False


class CallerSettings(PolicySettings, frozen=True, kw_only=True):
    """One internal service: how it authenticates (by a key's SHA-256, or by a service account) and what it may do."""

    keys: tuple[Sha256 | KeySettings, ...] = ()
    service_accounts: tuple[Account, ...] = ()


class ServiceAccountSettings(_Section, frozen=True, kw_only=True):
    """Which Kubernetes service account tokens to accept, and where their signing keys are published."""

    issuer: Annotated[str, Meta(min_length=1, max_length=1024)]
    audience: Annotated[str, Meta(min_length=1, max_length=1024)]
    jwks_url: str | None = None
    jwks_file: str | None = None
    ca_file: str | None = None
    token_file: str | None = None
    refresh_s: Annotated[float, Meta(ge=1, le=86_400)] = 300.0
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0
    unknown: PolicySettings | None = None


class Settings(_Section, frozen=True, kw_only=True):
    """The whole configuration."""

    apps: Annotated[dict[Name, AppSettings], Meta(min_length=1)]
    callers: dict[Name, CallerSettings]
    auth: Literal["callers", "none"] = "callers"
    service_accounts: ServiceAccountSettings | None = None
    redis: RedisSettings
    budget: BudgetSettings = BudgetSettings()
    cache: CacheSettings = CacheSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    query: QuerySettings = QuerySettings()
    watch: WatchSettings = WatchSettings()
    server: ServerSettings = ServerSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
