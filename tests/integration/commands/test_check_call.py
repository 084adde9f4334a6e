"""`taskgate check --call`: real calls for each app, and their faults in words to act on."""

import os
import pty
from pathlib import Path

import pytest
import yaml

from service.sandbox.faults import CutOff, ErrorCode, Garbage, Hang, HttpStatus, SandboxFault
from service.sandbox.serving import Sandbox
from tests.control_client import control
from tests.forks import taskgate
from tests.servers import Server

NO_REDIS = "redis://127.0.0.1:1/0"


async def checked(sandbox: Sandbox, directory: Path, **changes: object) -> tuple[int, str]:
    """Check a configuration of the sandbox's first app, without Redis; return the status and the app's first line.

    A second one is there only if the first is good.
    """
    status, lines = await checked_lines(configuration(sandbox, directory, **changes))
    assert len(lines) == (2 if lines[0].startswith("shop: ok") else 1), lines
    return status, lines[0]


async def checked_lines(file: Path) -> tuple[int, list[str]]:
    """Check a configuration without Redis; return the status and the lines of the sandbox's first app."""
    status, text = await run_check(file, "--alone")
    return status, [line for line in text.splitlines() if line.startswith("shop: ")]


def configuration(sandbox: Sandbox, directory: Path, *, redis: str = NO_REDIS, **changes: object) -> Path:
    """Write a configuration of the sandbox's first app."""
    app = sandbox.app
    (directory / "good").write_text(app.key)
    (directory / "wrong").write_text("0" * 64)
    settings = {"sdkappid": app.sdkappid, "admin": app.admin, "base_url": sandbox.base_url, "secret_file": "good"}
    file = directory / "taskgate.yaml"
    calls = {"connect_timeout_s": 2.0, "read_timeout_s": 2.0, "call_timeout_s": 2.5}
    apps = {"shop": settings | changes}
    rest = {"callers": {}, "redis": {"url": redis}, "upstream": calls}
    file.write_text(yaml.safe_dump({"apps": apps} | rest))
    return file


async def run_check(file: Path, *options: str, stdin: int | None = None) -> tuple[int, str]:
    """Run the command; return its status and what it printed."""
    status, out, err = await taskgate("check", str(file), "--call", *options, stdin=stdin)
    assert "Traceback" not in out + err
    return status, out + err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"secret_file": "wrong"}, "the secret is most likely wrong"),
        ({"sdkappid": 1400009999}, "mostly the region is wrong"),
        ({"admin": "somebody"}, "Check the app's admin"),
        ({"base_url": "http://127.0.0.1:9"}, "Check that this machine resolves and reaches the upstream's host"),
    ],
    ids=["secret", "region", "admin", "address"],
)
async def test_wrong_settings_are_reported(
    sandbox: Sandbox, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    """A wrong secret, region, admin and address are each reported as such, with status 1."""
    status, line = await checked(sandbox, tmp_path, **changes)
    assert words in line
    assert status == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ErrorCode(code=60021, text="ip not allowed"), "does not allow calls from this source address"),
        (ErrorCode(code=60020, text="package"), "The app's package does not include this call"),
        (ErrorCode(code=60011, text="slower"), "something else calls with the same SDKAppID"),
        (ErrorCode(code=70001, text="expired"), "whether this machine's clock is right"),
        (ErrorCode(code=12345, text="new"), "code 12345 (new)"),
        (HttpStatus(status=502), "The upstream is in trouble or overloaded"),
        (HttpStatus(status=404), "something else answers at this address"),
        (Garbage(of="html"), "something else may answer at this address"),
        (CutOff(), "The answer can't be used"),
        (Hang(hold_ms=10_000), "something on the way swallows answers"),
    ],
    ids=lambda value: "" if isinstance(value, str) else repr(value).partition("(")[0],
)
async def test_upstream_refusals_are_reported(
    sandbox: Sandbox, tmp_path: Path, fault: SandboxFault, words: str
) -> None:
    """The upstream's refusals, and foreign answers in its place, are reported in plain words, with status 1."""
    await control(sandbox).add_fault(fault)
    status, line = await checked(sandbox, tmp_path)
    assert words in line
    assert status == 1


async def test_a_working_app_is_reported_with_its_number_of_tasks(sandbox: Sandbox, tmp_path: Path) -> None:
    """One call is made, and the line says how many tasks there are."""
    status, line = await checked(sandbox, tmp_path)
    assert status == 0
    assert line.startswith("shop: ok, ")
    assert (await control(sandbox).stats()).of(sandbox.app.sdkappid).calls == 1


async def test_single_tasks_are_checked(sandbox: Sandbox, tmp_path: Path) -> None:
    """After the list, its first task and an unknown one are requested; the second line says that both answers were
    right."""
    status, lines = await checked_lines(configuration(sandbox, tmp_path))
    assert (status, lines[1:]) == (0, ["shop: get_sched_task: ok"])
    assert (await control(sandbox).stats()).of(sandbox.app.sdkappid, "get").calls == 2


@pytest.mark.parametrize(
    ("fault", "words", "status"),
    [
        (ErrorCode(code=60020, text="package", call="get"), "get_sched_task: The upstream refused the call with", 1),
        (HttpStatus(status=404, call="get"), "get_sched_task: The answer was HTTP status 404", 1),
        (ErrorCode(code=90109, text="none", call="get", every=2), "add 90109 to upstream.unknown_task_codes", 0),
        (ErrorCode(code=90106, text="none", call="get"), "the id of a listed task is unknown", 1),
    ],
    ids=lambda value: repr(value).partition(",")[0] if isinstance(value, SandboxFault) else "",
)
async def test_faults_of_single_tasks_have_a_separate_line(
    sandbox: Sandbox, tmp_path: Path, fault: SandboxFault, words: str, status: int
) -> None:
    """Faults of `get_sched_task` have a line of their own, and so has a code for unknown ids that is not configured."""
    await control(sandbox).add_fault(fault)
    found, lines = await checked_lines(configuration(sandbox, tmp_path))
    assert lines[0].startswith("shop: ok, ")
    assert words in lines[1]
    assert found == status


async def test_an_empty_list_leaves_only_the_unknown_task_to_request(sandbox: Sandbox, tmp_path: Path) -> None:
    """If the list is empty, only an unknown task is requested."""
    await control(sandbox).resize_tasks(sandbox.app.sdkappid, 0)
    status, lines = await checked_lines(configuration(sandbox, tmp_path))
    assert (status, lines[1:]) == (0, ["shop: get_sched_task: ok"])
    assert (await control(sandbox).stats()).of(sandbox.app.sdkappid, "get").calls == 1


async def test_the_call_takes_a_turn_in_the_shared_budget(
    sandbox: Sandbox, shared_valkey: Server, tmp_path: Path
) -> None:
    """With Redis there is no prompt; a new budget begins with a quiet window, so the call waits for its turn."""
    file = configuration(sandbox, tmp_path, redis=shared_valkey.url)
    status, text = await run_check(file)
    assert (status, "shop: ok, " in text) == (0, True), text
    assert "shop: get_sched_task: ok" in text
    assert "on top of" not in text
    assert (await control(sandbox).stats()).of(sandbox.app.sdkappid).calls == 1


@pytest.mark.parametrize(("answer", "calls"), [(b"n\n", 0), (b"\n", 0), (b"y\n", 1)])
async def test_without_redis_a_call_needs_confirmation(
    sandbox: Sandbox, tmp_path: Path, answer: bytes, calls: int
) -> None:
    """On a terminal the call is made only after a yes."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        status, text = await run_check(configuration(sandbox, tmp_path), stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert "these calls are made in addition to the gateway's" in text
    assert "[y/N]" in text
    assert ("shop: ok, " in text, "shop: not called: Redis is unavailable" in text) == (calls == 1, calls == 0), text
    assert status == 1 - calls
    assert (await control(sandbox).stats()).of(sandbox.app.sdkappid).calls == calls


async def test_without_redis_and_a_terminal_nothing_is_called(sandbox: Sandbox, tmp_path: Path) -> None:
    """A script gets status 1 and the option that makes the call."""
    status, text = await run_check(configuration(sandbox, tmp_path))
    assert status == 1
    assert "--alone" in text
    assert (await control(sandbox).stats()).of(sandbox.app.sdkappid).calls == 0
