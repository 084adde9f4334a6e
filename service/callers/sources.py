"""Where an issuer's JWKS comes from: a file, or a URL. Beside the upstream the only module that imports httpx."""

import asyncio
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path

import httpx

from service.callers.issuer import Issuer, KeySource, SourceFailed
from service.callers.signing_keys import JWKS_MAX_BYTES
from service.settings import ServiceAccountSettings

FILE_EVERY_S = 1.0
_TOKEN_MAX_BYTES = 16 * 1024


class FileSource:
    """A JWKS in a file."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    async def read(self) -> bytes:
        """The file's bytes. Raises SourceFailed."""
        return await asyncio.to_thread(_read, self._path, JWKS_MAX_BYTES)


class UrlSource:
    """A JWKS behind a URL: an issuer's public one, or the API server's, which wants its own CA and a token.

    Each read has a client of its own, for it is seldom, and CA and token may have changed.
    """

    def __init__(self, url: str, *, ca_file: str | None, token_file: str | None, timeout_s: float) -> None:
        self._url = url
        self._ca_file = ca_file
        self._token_file = token_file
        self._timeout_s = timeout_s

    async def read(self) -> bytes:
        """The answer's body. Raises SourceFailed; takes `timeout_s` at most."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._get()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:  # time-outs are OSErrors
            raise SourceFailed(f"the keys' URL can't be read: {type(exc).__name__}") from exc

    async def _get(self) -> bytes:
        fields = {"accept": "application/jwk-set+json, application/json", "user-agent": "taskgate"}
        if self._token_file is not None:
            token = await asyncio.to_thread(_read, Path(self._token_file), _TOKEN_MAX_BYTES)
            fields["authorization"] = f"Bearer {token.decode('ascii').strip()}"
        context = await asyncio.to_thread(ssl.create_default_context, cafile=self._ca_file) if self._ca_file else True
        client = httpx.AsyncClient(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            timeout=self._timeout_s,
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=())),
        )
        async with client, client.stream("GET", self._url, headers=fields) as answer:
            if answer.status_code != httpx.codes.OK:
                raise SourceFailed(f"the keys' URL answered with HTTP status {answer.status_code}")
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > JWKS_MAX_BYTES:
                    raise SourceFailed("the keys' URL answered with more than a JWKS")
        return bytes(body)


def issuer_of(settings: ServiceAccountSettings) -> Issuer:
    """The issuer's keys, from where the settings say; `rules.py` has checked that they say it once."""
    if settings.jwks_file is not None:
        return Issuer(FileSource(settings.jwks_file), refresh_s=min(FILE_EVERY_S, settings.refresh_s))
    source: KeySource = UrlSource(
        settings.jwks_url or "",
        ca_file=settings.ca_file,
        token_file=settings.token_file,
        timeout_s=settings.timeout_s,
    )
    return Issuer(source, refresh_s=settings.refresh_s)


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as exc:
        raise SourceFailed(f"the file {path} can't be read: {exc.strerror}") from exc
    if len(raw) > max_bytes:
        raise SourceFailed(f"the file {path} holds more than {max_bytes} bytes")
    return raw
