"""A process that has imported `taskgate` and forks to run it: `python -m tests.fork_server FD`, for tests/forks.py.

Each message on the socket is an order, with the three standard streams attached. A fork is reported as `PID`, and its
end as `PID STATUS`, with a negative status for a signal, as in `subprocess`. The process ends when the other side
closes the socket.
"""

import gc
import os
import selectors
import signal
import socket
import sys

import msgspec

from service.__main__ import main
from service.commands.serve import NOT_NEEDED, blocked_imports
from tests.death import die_with_parent

ORDER_MAX_BYTES = 200_000


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: the arguments of `taskgate`, and its complete environment."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


def preload() -> None:
    """Import exactly what gateways and sandboxes import."""
    gc.disable()
    with blocked_imports(*NOT_NEEDED, "opentelemetry"):
        __import__("service.app")
        __import__("service.server.lifecycle")
        __import__("service.commands.check_call")
        __import__("service.sandbox.serving")
    __import__("uvloop")
    gc.freeze()
    gc.enable()


def arguments_in_a_fork(orders: socket.socket) -> list[str] | None:
    """Fork for every order; return its arguments in each fork, and None at the end."""
    woken, wakes = socket.socketpair()
    for each in (woken, wakes):
        each.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    for each in (orders, woken):
        selector.register(each, selectors.EVENT_READ)
    while True:
        ready = [key.fileobj for key, _ in selector.select()]
        if woken in ready:
            woken.recv(4096)
            _report_ended(orders)
        if orders not in ready:
            continue
        message, streams, _, _ = socket.recv_fds(orders, ORDER_MAX_BYTES, 3)
        if not message:
            return None
        order = msgspec.json.decode(message, type=Order)
        if not (pid := os.fork()):
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in (selector, orders, woken, wakes):
                each.close()
            _become(order, streams)
            return list(order.arguments)
        for stream in streams:
            os.close(stream)
        orders.send(b"%d" % pid)


def _become(order: Order, streams: list[int]) -> None:
    die_with_parent()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(order.environment)


def _report_ended(orders: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        orders.send(b"%d %d" % (pid, os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    preload()
    arguments = arguments_in_a_fork(socket.socket(fileno=int(sys.argv[1])))
    sys.exit(None if arguments is None else main(arguments))
