"""Redis behind TLS: with a private CA, with a client certificate, and the errors if it fails."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.model.errors import StoreUnavailable
from service.settings import RedisSettings
from service.store.redis_store import RedisStore
from tests.certificates import Authority
from tests.ports import free_port
from tests.servers import BINARIES, Server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@asynccontextmanager
async def behind_tls(
    valkey: Server, cert: tuple[Path, Path], *, clients: Authority | None = None
) -> AsyncIterator[str]:
    """The URL of the server behind TLS, which requires a certificate of `clients`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*cert)
    if clients is not None:
        context.load_verify_locations(clients.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    tasks: set[asyncio.Task[Any]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", valkey.port)
        tasks.update(asyncio.create_task(pump(*way)) for way in ((reader, inner_writer), (inner_reader, writer)))

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    try:
        yield f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[RedisStore]:
    store = RedisStore(RedisSettings(url=url, timeout_s=2.0, **{name: str(value) for name, value in settings.items()}))
    try:
        yield store
    finally:
        await store.aclose()


async def fault_of(url: str, **settings: Any) -> tuple[str, list[str]]:
    """The fault of a call, and the logged reasons."""
    with capture_logs() as logs:
        async with opened(url, **settings) as store:
            with pytest.raises(StoreUnavailable) as caught:
                await store.get("t:{a}:k")
    return caught.value.detail, [entry["reason"] for entry in logs if entry["event"] == "store.tls_failed"]


async def test_a_private_ca_is_trusted(valkey: Server, authority: Authority) -> None:
    """With `ca_file` commands and messages go through TLS; without it the error names the certificate."""
    async with behind_tls(valkey, authority.issue("server")) as url:
        async with opened(url, ca_file=authority.certificate) as store:
            heard: list[bytes] = []
            listening = asyncio.Event()
            store.listen("t:c", heard.append, on_gap=listening.set)
            await store.put("t:{a}:k", b"v", ttl_ms=10_000)
            assert await store.get("t:{a}:k") == b"v"
            await asyncio.wait_for(listening.wait(), 20)
        detail, [reason] = await fault_of(url)
    assert detail == "certificate not trusted"
    assert "unable to get local issuer certificate" in reason


async def test_a_certificate_for_another_host_is_not_trusted(valkey: Server, authority: Authority) -> None:
    """A certificate for another host is a fault of the certificate, and the log names it."""
    async with behind_tls(valkey, authority.issue("server")) as url:
        detail, [reason] = await fault_of(url.replace("127.0.0.1", "localhost"), ca_file=authority.certificate)
    assert detail == "certificate not trusted"
    assert "Hostname mismatch" in reason


async def test_a_client_certificate_is_presented(valkey: Server, authority: Authority, tmp_path: Path) -> None:
    """A client certificate is presented if the server requests one."""
    clients = Authority(tmp_path, "clients")
    cert, key = clients.issue("gateway")
    async with behind_tls(valkey, authority.issue("server"), clients=clients) as url:
        async with opened(url, ca_file=authority.certificate, cert_file=cert, key_file=key) as store:
            await store.put("t:{a}:k", b"v", ttl_ms=10_000)
        assert (await fault_of(url, ca_file=authority.certificate))[0] in {"TLS failed", "unreachable"}


async def test_redis_requires_a_client_certificate(authority: Authority) -> None:
    """Redis, if installed, requests a client certificate: without one the fault is TLS, and logged."""
    cert, key = authority.issue("server")
    files = ("--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-ca-cert-file", str(authority.certificate))
    for binary in (path for name, path in BINARIES.items() if name == "redis"):
        port = free_port()
        with Server("--tls-port", str(port), *files, binary=binary):
            url = f"rediss://127.0.0.1:{port}/0"
            async with opened(url, ca_file=authority.certificate, cert_file=cert, key_file=key) as store:
                await store.put("t:{a}:k", b"v", ttl_ms=10_000)
            reasons: list[str] = []
            async with asyncio.timeout(30):
                while not any("certificate required" in reason for reason in reasons):
                    detail, reasons = await fault_of(url, ca_file=authority.certificate)
                    assert detail in {"TLS failed", "unreachable"}  # a reset may overtake the reason


async def test_a_server_without_tls_is_reported(valkey: Server) -> None:
    """rediss:// to a port that speaks plain RESP is a fault of TLS, not of the network."""
    detail, _ = await fault_of(f"rediss://127.0.0.1:{valkey.port}/0")
    assert detail in {"TLS failed", "unreachable", "timed out"}


async def test_the_setting_username_wins_over_the_url(own_valkey: Server) -> None:
    """`username` wins over the URL's."""
    own_valkey.run("ACL", "SETUSER", "gate", "on", "nopass", "~*", "&*", "+@all")
    own_valkey.run("ACL", "SETUSER", "default", "off")
    store = RedisStore(
        RedisSettings(url=f"redis://other@127.0.0.1:{own_valkey.port}", username="gate", timeout_s=5.0), password="x"
    )
    await store.put("t:{a}:k", b"v", ttl_ms=10_000)
    await store.aclose()
