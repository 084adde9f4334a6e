"""Drives Debian's headless Chromium over a pipe, using only the standard library (Chrome DevTools Protocol)."""

import asyncio
import base64
import contextlib
import fcntl
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
ANSWER_S = 20.0
ANSWER_MAX_BYTES = 32 * 1024 * 1024


class Tab:
    """One page with its requests, console errors and exceptions, in order."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        self.requests: list[str] = []
        self.errors: list[str] = []

    def heard(self, method: str, params: dict[str, Any]) -> None:
        """Note an event."""
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str(params["args"]))

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def text(self) -> str:
        """Return the visible text."""
        return str(await self.run("document.body.innerText"))

    async def until(self, script: str, *, within_s: float = 10.0) -> None:
        """Wait until a JavaScript expression is true."""
        try:
            async with asyncio.timeout(within_s):
                while not await self.run(f"Boolean({script})"):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never: {script}\n{await self.text()}\n{self.errors}") from None

    async def type(self, text: str) -> None:
        """Type into the focused element."""
        await self.call("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        """Press a key: Enter, Tab or ArrowRight."""
        codes = {"Enter": 13, "Tab": 9, "ArrowRight": 39}
        event: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        if key == "Enter":
            event["text"] = "\r"
        await self.call("Input.dispatchKeyEvent", type="keyDown", **event)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    async def look(self, *, width: int = 1200, dark: bool = False) -> None:
        """Set the window's width and the preferred colour scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self) -> bytes:
        """A PNG of the whole page."""
        return base64.b64decode((await self.call("Page.captureScreenshot", captureBeyondViewport=True))["data"])


class _Wire:
    """Sends commands to the browser and receives its responses and events."""

    def __init__(self, reader: asyncio.StreamReader, commands: int) -> None:
        self._reader = reader
        self._commands = commands
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self.session: dict[str, str] = {}
        self.tab = Tab(self.call)

    async def call(self, method: str, **params: Any) -> Any:
        """One command's answer."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "method": method, "params": params, **self.session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        async with asyncio.timeout(ANSWER_S):
            return await answer

    async def listen(self) -> None:
        """Dispatch messages until the browser exits."""
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                if "id" not in message:
                    self.tab.heard(message["method"], message["params"])
                    continue
                answer = self._waiting.pop(message["id"])
                if answer.done():
                    continue
                if "error" in message:
                    answer.set_exception(AssertionError(message["error"]))
                else:
                    answer.set_result(message["result"])


@asynccontextmanager
async def chromium_tab(url: str) -> AsyncIterator[Tab]:
    """A tab of a new browser with this page loaded."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program is not None, "there is no chromium on the PATH (Debian: apt-get install chromium)"
    theirs_in, ours_out = _pipe()
    ours_in, theirs_out = _pipe()
    # Chromium reads commands from descriptor 3 and writes answers to 4; the shell puts them there.
    shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = await asyncio.create_subprocess_exec(
            "bash",
            *("-c", shell, "bash", program, *_FLAGS, f"--user-data-dir={profile}"),
            pass_fds=(theirs_in, theirs_out),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        reader = asyncio.StreamReader(limit=ANSWER_MAX_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours_in, "rb", buffering=0)
        )
        wire = _Wire(reader, ours_out)
        tab, call = wire.tab, wire.call
        listening = asyncio.create_task(wire.listen())
        try:
            target = await call("Target.createTarget", url="about:blank")
            wire.session["sessionId"] = (await call("Target.attachToTarget", flatten=True, **target))["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                await call(f"{domain}.enable")
            await tab.look()
            await call("Page.navigate", url=url)
            await tab.until("document.readyState === 'complete'")
            yield tab
        finally:
            os.close(ours_out)  # the browser ends when its pipe does
            try:
                await asyncio.wait_for(browser.wait(), 5)
            except TimeoutError:
                browser.kill()
                await browser.wait()
            transport.close()
            await asyncio.wait({listening}, timeout=5)
            listening.cancel()


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are none of the descriptors that the browser uses."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
