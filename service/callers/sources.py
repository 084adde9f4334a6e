"""Sources of an issuer's JWKS: a file or a URL."""

import asyncio
from pathlib import Path

from service.callers.issuer import KeySource, KeySourceFailed, TokenIssuer
from service.callers.signing_keys import JWKS_MAX_BYTES
from service.http_client.addresses import tls_context
from service.http_client.client import HttpClient
from service.http_client.connection import HttpAnswer, HttpLimits
from service.http_client.errors import AnswerTooLarge, HttpFailure
from service.http_client.resolver import Resolver
from service.http_client.threads import OwnThread
from service.settings import ServiceAccountSettings

FILE_EVERY_S = 1.0
_TOKEN_MAX_BYTES = 16 * 1024


class FileKeySource:
    """A JWKS in a file."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._thread = OwnThread()

    async def read(self) -> bytes:
        """Return the file's bytes. Raise KeySourceFailed."""
        return await self._thread.run(_read, self._path, JWKS_MAX_BYTES)


class UrlKeySource:
    """A JWKS behind a URL: a public one, or the API server's, which requires its own CA and a token.

    Each read opens its own connection: reads are rare, and the CA and the token may have changed.
    """

    def __init__(self, url: str, *, ca_file: str | None, token_file: str | None, timeout_s: float) -> None:
        self._url = url
        self._ca_file = ca_file
        self._token_file = token_file
        self._timeout_s = timeout_s
        self._thread = OwnThread()
        self._resolver = Resolver()

    async def read(self) -> bytes:
        """Return the response body, within `timeout_s`. Raise KeySourceFailed."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._get()
        except AnswerTooLarge as exc:
            raise KeySourceFailed("the keys' URL answered with more than a JWKS") from exc
        except HttpFailure as exc:
            raise KeySourceFailed(f"the keys' URL can't be read: {exc}") from exc
        except (OSError, ValueError) as exc:  # timeouts are OSErrors
            raise KeySourceFailed(f"the keys' URL can't be read: {type(exc).__name__}") from exc
        if answer.status != 200:
            raise KeySourceFailed(f"the keys' URL answered with HTTP status {answer.status}")
        return answer.body

    async def _get(self) -> HttpAnswer:
        headers = [
            ("accept", "application/jwk-set+json, application/json"),
            ("accept-encoding", "identity"),
            ("connection", "close"),
            ("user-agent", "taskgate"),
        ]
        if self._token_file is not None:
            token = await self._thread.run(_read, Path(self._token_file), _TOKEN_MAX_BYTES)
            headers.append(("authorization", f"Bearer {_token_line(token)}"))
        limits = HttpLimits(
            connect_timeout_s=self._timeout_s,
            read_timeout_s=self._timeout_s,
            connections=1,
            answer_max_bytes=JWKS_MAX_BYTES,
        )
        context = await self._thread.run(tls_context, self._ca_file)
        client = HttpClient(limits, resolver=self._resolver, context=context)
        deadline_s = asyncio.get_running_loop().time() + self._timeout_s
        try:
            return await client.request(
                "GET", self._url, headers=tuple(headers), deadline_s=deadline_s, before_send=_no_wait
            )
        finally:
            await client.aclose()


def issuer_of(settings: ServiceAccountSettings) -> TokenIssuer:
    """Return the issuer's keys, from the configured source; `rules.py` has checked that there is exactly one."""
    if settings.jwks_file is not None:
        return TokenIssuer(FileKeySource(settings.jwks_file), refresh_s=min(FILE_EVERY_S, settings.refresh_s))
    source: KeySource = UrlKeySource(
        settings.jwks_url or "",
        ca_file=settings.ca_file,
        token_file=settings.token_file,
        timeout_s=settings.timeout_s,
    )
    return TokenIssuer(source, refresh_s=settings.refresh_s)


async def _no_wait() -> None:
    """Do nothing before the request is sent."""


def _token_line(token: bytes) -> str:
    """Return the token in a file. Raise ValueError if it is not valid in a header field."""
    text = token.decode("ascii").strip()
    if not text.isprintable() or " " in text:
        raise ValueError("no token")
    return text


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as exc:
        raise KeySourceFailed(f"the file {path} can't be read: {exc.strerror}") from exc
    if len(raw) > max_bytes:
        raise KeySourceFailed(f"the file {path} holds more than {max_bytes} bytes")
    return raw
