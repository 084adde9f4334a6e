"""Run one command, and end it when the process that started this guard is gone, for whatever reason.

Started as `python -I -S guard.py GRACE_S DIRECTORY COMMAND...` with a pipe as its standard input, by `children.py`. The
pipe's other end is held by the parent alone, so the kernel closes it even when the parent is killed with SIGKILL. Then
the guard ends the command with its whole process group and removes DIRECTORY (unless that is empty, or the parent
wrote `keep` first). If the command ends by itself, the directory stays: the parent is there to decide. The guard
exits with the command's status. It imports little, and starts in about 15 ms.
"""

import contextlib
import os
import select
import signal
import sys
import time

LOST = 127


def main(arguments: list[str]) -> int:
    """Guard one command until it ends or the pipe closes; return the command's exit status."""
    grace_s, directory, command = float(arguments[0]), arguments[1], arguments[2:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the pipe decides, or a stray Ctrl-C would leave orphans
    wakeup_in, wakeup_out = os.pipe()
    os.set_blocking(wakeup_out, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup_out, warn_on_full_buffer=False)
    pid = start(command)
    abandoned = watch_command(wakeup_in, pid)
    status = end(pid, grace_s)
    if directory and abandoned:
        remove(directory)
    return status


def start(command: list[str]) -> int:
    """Start the command in a process group of its own, with no standard input and default signals."""
    pid = os.fork()  # safe here: this process has one thread
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(command[0], command)  # noqa: S606 the point of this file
    except OSError as exc:
        os.write(2, f"{command[0]}: {exc.strerror}\n".encode())
    os._exit(LOST)


def watch_command(wakeup: int, pid: int) -> bool:
    """Wait until the command has ended or the pipe is closed; return whether it was closed without `keep`."""
    received = b""
    while not has_ended(pid):
        ready, _, _ = select.select([0, wakeup], [], [])
        if wakeup in ready:
            os.read(wakeup, 512)
        if 0 in ready:
            data = os.read(0, 16)
            if not data:
                return not received.endswith(b"keep")
            received = (received + data)[-16:]
    return False


def has_ended(pid: int) -> bool:
    """Return whether the command has ended, without reaping it, so that its process group id can't be reused."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end(pid: int, grace_s: float) -> int:
    """Terminate the command, kill it after `grace_s`, and its whole group with it."""
    if grace_s > 0 and not has_ended(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + grace_s
        while not has_ended(pid) and time.monotonic() < until:
            time.sleep(0.01)
    for kill in (os.killpg, os.kill):  # a command that was just forked may not lead its group yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def remove(directory: str) -> None:
    """Remove the directory and its content; a file that vanishes meanwhile is no error."""
    for folder, subfolders, files in os.walk(directory, topdown=False):
        for name in files:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))
        for name in subfolders:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(folder, name))
    with contextlib.suppress(OSError):
        os.rmdir(directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
