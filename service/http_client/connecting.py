"""Opening connections: directly to the host, or through a proxy."""

import asyncio
import socket
import ssl

import h11

from service.http_client.addresses import HttpOrigin, HttpProxy
from service.http_client.byte_stream import ByteStream
from service.http_client.errors import NotConnected
from service.http_client.resolver import Resolver

_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (ssl.SSLCertVerificationError, "the certificate is not valid for the host name, or not trusted"),
    (ssl.SSLError, "no TLS connection could be made"),
    (ConnectionRefusedError, "the host refused the connection"),
    (TimeoutError, "no connection could be made in time"),
    (socket.gaierror, "the host name could not be resolved"),
)


async def connected(
    origin: HttpOrigin, *, resolver: Resolver, context: ssl.SSLContext, proxy: HttpProxy | None, until_s: float
) -> ByteStream:
    """Return a connection to the origin, by `until_s` (loop time). Raise NotConnected."""
    hop = origin if proxy is None else proxy.origin
    addresses = await resolver.resolve(hop.host, hop.port, until_s=until_s)
    failure: BaseException = ConnectionError()
    loop = asyncio.get_running_loop()
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        share_s = max(until_s - loop.time(), 0.0) / left
        try:
            async with asyncio.timeout(share_s):
                return await _opened(address, origin, context=context, proxy=proxy, until_s=until_s)
        except (OSError, NotConnected) as exc:  # timeouts are OSErrors
            failure = exc
    if isinstance(failure, NotConnected):
        raise NotConnected(str(failure))
    raise NotConnected(_reason(failure))


async def _opened(
    address: str, origin: HttpOrigin, *, context: ssl.SSLContext, proxy: HttpProxy | None, until_s: float
) -> ByteStream:
    loop = asyncio.get_running_loop()
    is_tls = origin.scheme == "https"
    if proxy is None:
        _, stream = await loop.create_connection(
            ByteStream,
            address,
            origin.port,
            ssl=context if is_tls else None,
            server_hostname=origin.host if is_tls else None,
        )
        return stream
    _, stream = await loop.create_connection(ByteStream, address, proxy.origin.port)
    if is_tls:
        try:
            await _open_tunnel(stream, origin, proxy=proxy, until_s=until_s)
            await stream.start_tls(context, host=origin.host)
        except BaseException:
            stream.close()
            raise
    return stream


async def _open_tunnel(stream: ByteStream, origin: HttpOrigin, *, proxy: HttpProxy, until_s: float) -> None:
    """Open a tunnel through the proxy (RFC 9110, 9.3.6). Raise NotConnected, OSError."""
    http = h11.Connection(h11.CLIENT)
    fields = [("host", origin.host_and_port), *proxy.fields()]
    head = h11.Request(method="CONNECT", target=origin.host_and_port, headers=fields)
    stream.send((http.send(head) or b"") + (http.send(h11.EndOfMessage()) or b""))
    try:
        while not isinstance(event := http.next_event(), h11.Response):
            if event is h11.NEED_DATA:
                http.receive_data(await stream.read(until_s=until_s))
            elif not isinstance(event, h11.InformationalResponse):
                raise NotConnected("the proxy closed the connection")
    except h11.RemoteProtocolError:
        raise NotConnected("the proxy's answer is not HTTP") from None
    if event.status_code // 100 != 2:
        why = ": it requires a user and password, or rejects these" if event.status_code == 407 else ""
        raise NotConnected(f"the proxy refused the connection with HTTP status {event.status_code}{why}")
    if http.trailing_data[0]:
        raise NotConnected("the proxy sent data before the connection was established")
    stream.rest()


def _reason(failure: BaseException) -> str:
    for kind, reason in _REASONS:
        if isinstance(failure, kind):
            return reason
    return "no connection to the host could be made"
