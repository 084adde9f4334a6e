"""A server of signing keys, with TLS like Kubernetes' API server, and a signer of tokens."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

ISSUER = "https://kubernetes.default.svc"
AUDIENCE = "taskgate"


class Signer:
    """Signing keys by kid, and the tokens that they sign."""

    def __init__(self, *kids: str) -> None:
        self._keys = {kid: ec.generate_private_key(ec.SECP256R1()) for kid in kids}

    def jwks(self, *kids: str) -> bytes:
        """The document that publishes these keys, or all."""
        names = kids or tuple(self._keys)
        keys = [{**json.loads(ECAlgorithm.to_jwk(self._keys[kid].public_key())), "kid": kid} for kid in names]
        return json.dumps({"keys": keys}).encode()

    def token(self, kid: str, account: str = "shop/reports", **changed: Any) -> str:
        """A token of an account, good for an hour."""
        now_s = int(time.time())
        subject = f"system:serviceaccount:{account.replace('/', ':')}"
        claims = {"iss": ISSUER, "aud": [AUDIENCE], "sub": subject, "nbf": now_s - 1, "exp": now_s + 3600}
        return jwt.encode({**claims, **changed}, self._keys[kid], algorithm="ES256", headers={"kid": kid})


class KeyServer:
    """Answers every request with `status` and `body`, and records the request's head; hangs while `hangs`."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.status = 200
        self.fields = ""
        self.hangs = False
        self.heads: list[str] = []
        self.port = 0

    @asynccontextmanager
    async def served(self, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        """Serve on loopback; yield the base URL."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", self.port, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield f"{'https' if context else 'http'}://127.0.0.1:{self.port}"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            while self.hangs:
                await asyncio.sleep(0.01)
            fields = f"Content-Length: {len(self.body)}\r\nConnection: close\r\nLocation: /other\r\n{self.fields}"
            writer.write(f"HTTP/1.1 {self.status} X\r\n{fields}\r\n".encode() + self.body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture(scope="session")
def signer() -> Signer:
    """Two keys."""
    return Signer("one", "two")


@pytest.fixture
def key_server(signer: Signer) -> KeyServer:
    """Serves both keys."""
    return KeyServer(signer.jwks())
