"""The commands, run as processes: what they print, and their exit status."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.sandbox.upstream import APPS
from tests.settings import hashed

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "docs" / "taskgate.example.yaml"


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `taskgate`, with only the given variables of ours."""
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith("TASKGATE")}
    done = subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=ROOT,
        env={**clean, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done


def test_help_and_version_are_fast() -> None:
    """`--help` takes under 100 ms of processor time at its best of five, and `--version` prints one."""
    took_s = []
    for _ in range(5):
        before = os.times()
        done = run("--help")
        after = os.times()
        took_s.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert done.returncode == 0
        assert all(
            command in done.stdout for command in ("serve", "sandbox", "demo", "check", "openapi", "usersig", "key")
        )
    assert min(took_s) < 0.1
    assert run("--version").stdout.startswith("taskgate ")


@pytest.mark.parametrize("arguments", [(), ("bake",), ("check",), ("serve", "--port"), ("demo", "--port", "x")])
def test_a_faulty_command_line_ends_with_status_2(arguments: tuple[str, ...]) -> None:
    """Usage errors say what was expected and end with status 2."""
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage: taskgate" in done.stderr


@pytest.mark.parametrize("arguments", [("serve",), ("usersig", "shop")])
def test_without_a_configuration_the_text_says_how_to_set_one(arguments: tuple[str, ...]) -> None:
    """If TASKGATE_CONFIG is missing, the text says how to set it and that there is a demo."""
    done = run(*arguments)
    assert done.returncode == 2
    assert "Set TASKGATE_CONFIG to the path of a YAML file" in done.stderr
    assert "taskgate demo" in done.stderr


def test_a_command_that_is_started_without_a_stderr_runs() -> None:
    """A closed stderr is replaced, so that no socket or file gets its number."""
    program = (
        "import os, sys; from service.__main__ import main; main(['openapi']); print(os.readlink('/proc/self/fd/2'))"
    )
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", program]
    ended = subprocess.run(shell, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    assert ended.stdout.splitlines()[-1] == os.devnull


def test_check_accepts_the_example() -> None:
    """A good configuration is ok, with its counts, the memory it may take, its warnings, and status 0."""
    done = run("check", str(EXAMPLE), SHOP_SECRET="0123", TASKGATE__CACHE__BLOCK_SIZE="10")
    assert done.returncode == 0
    ok, memory, *uses = done.stdout.splitlines()
    assert ok == "ok: 1 app, 1 caller"
    assert re.fullmatch(r"memory: at most \d+ MiB", memory)
    assert all(re.fullmatch(r" +\d+\.\d MiB  .+", use) for use in uses)
    assert done.stderr == (
        "warning: cache.block_size: pages have at most 10 tasks, the size of a block "
        "(set by TASKGATE__CACHE__BLOCK_SIZE)\n"
    )


@pytest.mark.parametrize("command", ["check", "serve", "usersig"])
def test_every_fault_is_printed_on_its_own_line(command: str, tmp_path: Path) -> None:
    """Bad configuration ends each command with status 2 and all faults on stderr."""
    file = tmp_path / "bad.yaml"
    file.write_text(EXAMPLE.read_text().replace("sdkappid: 1400000000", "sdkappid: x").replace("port: 8000", "port: 0"))
    arguments = {"check": ("check", str(file)), "serve": ("serve", "--config", str(file))}
    done = run(*arguments.get(command, ("usersig", "shop", "--config", str(file))))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["apps.shop.sdkappid: expected int, got str", "server.port: expected int >= 1"]


def test_check_with_call_reports_an_unreachable_upstream(tmp_path: Path) -> None:
    """If an app's call fails, its line says why, and the status is 1."""
    file = tmp_path / "taskgate.yaml"
    file.write_text(EXAMPLE.read_text().replace("# base_url: https://upstream.example", "base_url: http://127.0.0.1:9"))
    done = run("check", str(file), "--call", "--alone", SHOP_SECRET="0123")
    assert done.returncode == 1
    ok, *_, shop = done.stdout.splitlines()
    assert ok == "ok: 1 app, 1 caller"
    assert shop.startswith("shop: ")
    assert done.stderr == ""


def test_check_with_call_calls_the_upstream(tmp_path: Path) -> None:
    """With the app's secret the app is ok, status 0; with another one its line says what is wrong, status 1."""
    app = APPS[0]
    server = subprocess.Popen(
        [sys.executable, "-m", "service", "sandbox", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        base_url = server.stdout.readline().split()[-1]
        text = EXAMPLE.read_text().replace("sdkappid: 1400000000", f"sdkappid: {app.sdkappid}")
        file = tmp_path / "taskgate.yaml"
        file.write_text(text.replace("# base_url: https://upstream.example", f"base_url: {base_url}"))
        good = run("check", str(file), "--call", "--alone", SHOP_SECRET=app.key)
        wrong = run("check", str(file), "--call", "--alone", SHOP_SECRET="0" * 64)
    finally:
        server.terminate()
        server.communicate(timeout=10)
    assert good.returncode == 0, good.stdout
    lists, tasks = good.stdout.splitlines()[-2:]
    assert lists.startswith("shop: ok, ")
    assert tasks == "shop: get_sched_task: ok"
    assert wrong.returncode == 1
    assert "the secret is most likely wrong" in wrong.stdout
    assert wrong.stderr == good.stderr == ""


def test_key_prints_a_key_and_its_settings() -> None:
    """The printed hash is that of the key, the key differs each time, and an invalid name is refused."""
    lines = run("key", "reports").stdout.splitlines()
    (key,) = [line for line in lines if line.startswith("tg_")]
    assert f'    keys: ["{hashed(key)}"]' in lines
    assert key not in run("key", "reports").stdout
    assert run("key", "No Name").returncode == 2


def test_usersig_prints_a_signature_and_how_long_it_is_valid(tmp_path: Path) -> None:
    """Only the signature is on stdout; its validity is on stderr; an unknown app is an error with status 2."""
    file = tmp_path / "taskgate.yaml"
    file.write_text(EXAMPLE.read_text())
    done = run("usersig", "shop", "--config", str(file), SHOP_SECRET="0123")
    assert done.returncode == 0
    assert done.stdout.startswith("eJ")
    assert "for administrator of 1400000000, valid 5184000 s, until 20" in done.stderr
    unknown = run("usersig", "nope", "--config", str(file), SHOP_SECRET="0123")
    assert (unknown.returncode, unknown.stderr) == (2, "taskgate usersig: no app 'nope'; known apps: shop\n")
