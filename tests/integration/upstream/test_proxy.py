"""Calls through a forward proxy, and trust in private CAs; neither comes from the environment."""

import asyncio
import shutil
import ssl
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.model.errors import UpstreamHTTPStatus, UpstreamUnreachable
from tests.integration.upstream.bench import Bench
from tests.ports import free_port
from tests.servers import until_listening


class Proxy:
    """A forward proxy in a few lines: for CONNECT and for whole URLs. `answer` overrides what CONNECT gets."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.answer = b"HTTP/1.1 200 Connection established\r\n\r\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            self.asked.append(head.split(b"\r\n")[0].decode())
            method, target, _ = self.asked[-1].split(" ")
            if method == "CONNECT":
                writer.write(self.answer)
                if b" 200 " not in self.answer:
                    return
            address = target if method == "CONNECT" else target.split("/")[2]
            host, port = address.rsplit(":", 1)
            behind, ahead = await asyncio.open_connection(host, int(port))
            if method != "CONNECT":
                ahead.write(head.replace(f"http://{address}".encode(), b"", 1))
            await asyncio.gather(self._pass(reader, ahead), self._pass(behind, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # the test has ended
        finally:
            writer.close()

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            to.write(data)
        to.close()


@pytest.fixture
async def proxy() -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy and its URL."""
    proxy = Proxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with server:
        yield proxy, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def over_tls(bench: Bench, certificate: Path) -> AsyncIterator[str]:
    """The bench's upstream over TLS, too; yields the base URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(bench.upstream.serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await bench.client.aclose()


async def test_a_private_ca_is_trusted_if_configured(
    bench: Bench, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose certificate the file vouches for is called; without it, and by the environment, it is not."""
    async with over_tls(bench, certificate) as base:
        bench.use(base, ca_file=str(certificate))
        assert (await bench.fetch()).total == 1
        await bench.client.aclose()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        bench.use(base)
        with pytest.raises(UpstreamUnreachable, match="not trusted"):
            await bench.fetch()


async def test_calls_go_through_the_proxy(bench: Bench, certificate: Path, proxy: tuple[Proxy, str]) -> None:
    """TLS goes through a tunnel, end to end; plain HTTP is requested by its whole URL. Connections are kept alive."""
    asked, url = proxy
    async with over_tls(bench, certificate) as base:
        bench.use(base, ca_file=str(certificate), proxy_url=url)
        for _ in range(3):
            assert (await bench.fetch()).total == 1
        assert asked.asked == [f"CONNECT {base.removeprefix('https://')} HTTP/1.1"]
        assert bench.upstream.connections == 1
        await bench.client.aclose()
        bench.use(proxy_url=url)
        assert (await bench.fetch()).total == 1
        assert asked.asked[1].startswith(f"POST {bench.base}/v4/timpush/list_sched_task?")


async def test_credentials_are_sent_only_to_the_proxy(
    bench: Bench, certificate: Path, proxy: tuple[Proxy, str]
) -> None:
    """Proxy credentials are sent with CONNECT, and with requests for whole URLs, but never through the tunnel."""
    asked, url = proxy
    expected = b"\r\nproxy-authorization: Basic " + b64encode(b"me:p:w")
    async with over_tls(bench, certificate) as base:
        bench.use(base, proxy_password="p:w", ca_file=str(certificate), proxy_url=url, proxy_username="me")
        assert (await bench.fetch()).total == 1
        await bench.client.aclose()
        bench.use(proxy_password="p:w", proxy_url=url, proxy_username="me")
        assert (await bench.fetch()).total == 1
    assert [expected.lower() in head.lower() for head in asked.heads] == [True, True]
    assert b"proxy-authorization" not in bench.upstream.requests[0].lower()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 403 Filtered\r\n\r\n", "HTTP status 403"),
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n",
            "407: it requires",
        ),
        (b"220 smtp.example\r\n\r\n", "answer is not HTTP"),
        (b"", "closed the connection|not HTTP"),
    ],
)
async def test_a_refusal_by_the_proxy_is_reported(
    bench: Bench, certificate: Path, proxy: tuple[Proxy, str], answer: bytes, text: str
) -> None:
    """If the proxy refuses, the call was not made, and the reason is reported."""
    asked, url = proxy
    asked.answer = answer
    async with over_tls(bench, certificate) as base:
        bench.use(base, ca_file=str(certificate), proxy_url=url)
        with pytest.raises(UpstreamUnreachable, match=text) as caught:
            await bench.fetch()
        assert not caught.value.sent
        assert bench.begun == 0
        assert bench.upstream.requests == []


async def test_an_unreachable_proxy_is_never_bypassed(bench: Bench) -> None:
    """If the proxy is unreachable, the call fails: the proxy is never bypassed."""
    bench.use(proxy_url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UpstreamUnreachable, match="refused the connection"):
        await bench.fetch()
    assert bench.upstream.connections == 0


async def test_a_hanging_proxy_times_out(bench: Bench, certificate: Path) -> None:
    """A connection through it must be made within the connection timeout."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server, over_tls(bench, certificate) as base:
        port = server.sockets[0].getsockname()[1]
        bench.use(base, ca_file=str(certificate), proxy_url=f"http://127.0.0.1:{port}", connect_timeout_s=0.2)
        with pytest.raises(UpstreamUnreachable, match="in time"):
            await bench.fetch()


@asynccontextmanager
async def tinyproxy(folder: Path, *lines: str) -> AsyncIterator[str]:
    """Debian's tinyproxy with these lines in its configuration; yields its URL."""
    program = shutil.which("tinyproxy")
    assert program, "tinyproxy is not installed (Debian: apt-get install tinyproxy)"
    port, file = free_port(), folder / "tinyproxy.conf"
    fixed = (f"Port {port}", "Listen 127.0.0.1", "Allow 127.0.0.1", f'LogFile "{folder / "tinyproxy.log"}"')
    file.write_text("\n".join((*fixed, "LogLevel Connect", "MaxClients 20", "Timeout 10", *lines, "")))
    process = await asyncio.create_subprocess_exec(
        program, "-d", "-c", str(file), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await until_listening(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.proxy
async def test_calls_go_through_tinyproxy(bench: Bench, certificate: Path, tmp_path: Path) -> None:
    """Debian's tinyproxy passes calls on, with TLS and without, and refuses a port that it does not allow."""
    async with over_tls(bench, certificate) as base:
        upstream_port = base.rsplit(":", 1)[1]
        async with tinyproxy(tmp_path, f"ConnectPort {upstream_port}") as url:
            bench.use(base, ca_file=str(certificate), proxy_url=url)
            for _ in range(3):
                assert (await bench.fetch()).total == 1
            assert bench.upstream.connections == 1
            assert f"CONNECT 127.0.0.1:{upstream_port}" in (tmp_path / "tinyproxy.log").read_text()
            await bench.client.aclose()
            bench.use(proxy_url=url)
            assert (await bench.fetch()).total == 1
            bench.use(f"https://127.0.0.1:{free_port()}", ca_file=str(certificate), proxy_url=url)
            with pytest.raises(UpstreamUnreachable, match="HTTP status 403"):
                await bench.fetch()


@pytest.mark.proxy
async def test_tinyproxy_accepts_only_the_right_password(bench: Bench, certificate: Path, tmp_path: Path) -> None:
    """With BasicAuth it passes on calls with the right password, and the reason for others names no password."""
    async with over_tls(bench, certificate) as base:
        lines = (f"ConnectPort {base.rsplit(':', 1)[1]}", "BasicAuth taskgate hunter2")
        async with tinyproxy(tmp_path, *lines) as url:
            known = {"ca_file": str(certificate), "proxy_url": url, "proxy_username": "taskgate"}
            bench.use(base, proxy_password="hunter2", **known)
            assert (await bench.fetch()).total == 1
            await bench.client.aclose()
            bench.use(proxy_password="hunter2", proxy_url=url, proxy_username="taskgate")
            assert (await bench.fetch()).total == 1
            await bench.client.aclose()
            bench.use(base, proxy_password="wrong-one", **known)
            with pytest.raises(UpstreamUnreachable, match=r"HTTP status 40[17]") as caught:
                await bench.fetch()
            assert not caught.value.sent
            assert "wrong-one" not in str(caught.value)
            bench.use(proxy_url=url)
            with pytest.raises(UpstreamHTTPStatus, match="HTTP status 407"):
                await bench.fetch()
