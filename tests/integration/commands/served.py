"""An app in a separate process: `python served.py PORT DRAIN_S [MODE [HOST]]`. It reports its events on stdout."""

import asyncio
import sys

from service.server.asgi import Client, EncodedResponse, Message, Receive, Scope, Send, StartFailed
from service.server.lifecycle import serve
from service.server.listening import CannotListen
from service.server.response_head import head_lines
from service.settings import ServerSettings
from service.telemetry.logs import configure


def tell(text: str) -> None:
    print(text, flush=True)


class Responses:
    """Answers /at-once before the app is called, the second time without parsing the request; fails at /broken."""

    def __init__(self) -> None:
        self.heads: set[bytes] = set()

    def lookup_head(self, head: bytes, client: Client | None) -> EncodedResponse | None:
        """Return the answer to a known head."""
        if head.startswith(b"GET /broken-again "):
            raise LookupError("broken")
        return EncodedResponse(head_lines(200, [(b"content-length", b"5")]), b"again") if head in self.heads else None

    def lookup(self, scope: Scope, head: bytes) -> EncodedResponse | None:
        """Return an answer by the path."""
        if scope["path"] == "/broken":
            raise LookupError("broken")
        if scope["path"] != "/at-once":
            return None
        self.heads.add(head)
        return EncodedResponse(head_lines(200, [(b"content-length", b"7")]), b"at once")


class App:
    """Answers /now at once, /slow after two seconds, /never never, /half half, /large with 20 MB; logs hang-ups."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
            return
        tell(f"got {scope['path']}")
        try:
            if scope["path"] == "/slow":
                await asyncio.sleep(2)
            if scope["path"] == "/never":
                await asyncio.sleep(3600)
            if scope["path"] == "/half":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"ok", "more_body": True})
                await asyncio.sleep(3600)
            if scope["path"] == "/watch":
                while (await receive())["type"] != "http.disconnect":
                    pass
                tell("hung up")
                return
        except asyncio.CancelledError:
            tell("cut off")
            raise
        body = bytes(20_000_000) if scope["path"] == "/large" else b"ok"
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})

    async def lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        if self.mode == "fails":
            await send({"type": "lifespan.startup.failed", "message": "no way"})
            return
        if self.mode == "slow-start":
            tell("starting")
            await asyncio.sleep(1)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self.mode == "never-ends":
            await asyncio.sleep(3600)
        tell("closed")
        done: Message = {"type": "lifespan.shutdown.complete"}
        await send(done)


class Hooks:
    """Reports the server's calls to the app before its shutdown."""

    def begin_drain(self) -> None:
        """The shutdown has been requested."""
        tell("leaving")

    def reject_waiting(self) -> None:
        """The drain is over."""
        tell("refusing")


def main() -> int:
    port, drain_s, mode = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""
    configure("info", as_json=True)
    host = sys.argv[4] if len(sys.argv) > 4 else "127.0.0.1"
    if mode == "asyncio":
        sys.modules["uvloop"] = None  # type: ignore[assignment]  # as if it were not installed
    settings = ServerSettings(host=host, port=port, drain_s=drain_s, headers_timeout_s=0.5, reader_timeout_s=2.0)
    try:
        serve(App(mode), settings, response_cache=Responses(), hooks=Hooks())
    except (CannotListen, StartFailed) as exc:
        tell(f"{type(exc).__name__}: {exc}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
