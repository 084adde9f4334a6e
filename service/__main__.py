"""The command line. Each command imports what it needs when it runs, so that `--help` is fast."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

_CONFIG = "the YAML file (default: $TASKGATE_CONFIG)"

_TASKS_EPILOG = """If a value starts with a minus, write it after an equals sign: --since=-P7D --sort=-created_at.
Exit status: 0 if all tasks were listed, 1 if some are missing (stderr says why), 2 if request or key are wrong."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 success, 1 failure, 2 invalid configuration or command line."""
    _open_stderr()
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        return command(parsed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _open_stderr() -> None:
    """Open /dev/null as stderr if it is closed: otherwise a socket could get its number, and receive our output."""
    if sys.stderr is None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the process ends


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="taskgate",
        description="Share one rate-limited list of scheduled push tasks among many internal services.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="run the gateway")
    serve.add_argument("--config", help=_CONFIG)
    serve.set_defaults(command=_serve)

    demo = commands.add_parser("demo", help="run the gateway with an embedded Valkey and a sandbox upstream")
    _listening(demo, port=8000)
    demo.set_defaults(command=_demo)

    sandbox = commands.add_parser("sandbox", help="run a sandbox upstream to develop and test against")
    _listening(sandbox, port=8100)
    sandbox.add_argument("--calls", type=int, default=5, help="calls allowed in a window (default: 5)")
    sandbox.add_argument("--window-s", type=float, default=1.0, help="length of a window in seconds (default: 1)")
    sandbox.add_argument("--range-max-days", type=int, default=366, help="longest range in days (default: 366)")
    sandbox.set_defaults(command=_sandbox)

    check = commands.add_parser("check", help="check a configuration and print all its faults")
    check.add_argument("config", metavar="CONFIG", help="the YAML file")
    check.add_argument("--redis", action="store_true", help="also try the Redis commands that a gateway uses")
    check.add_argument("--call", action="store_true", help="also make a few real calls for each app, within its budget")
    check.add_argument("--alone", action="store_true", help="with --call: if Redis is away, call outside the budget")
    check.add_argument("--memory", type=int, metavar="MIB", help="compare with this limit (default: the container's)")
    check.set_defaults(command=_check)

    usersig = commands.add_parser("usersig", help="print a signature for manual upstream calls")
    usersig.add_argument("app", metavar="APP", help="name of the app in the configuration")
    usersig.add_argument("--config", help=_CONFIG)
    usersig.set_defaults(command=_usersig)

    _listing(commands.add_parser("tasks", help="list an app's tasks through a running gateway", epilog=_TASKS_EPILOG))

    key = commands.add_parser("key", help="create a key for a caller, and print it with its settings")
    key.add_argument("name", metavar="NAME", help="name of the caller")
    key.set_defaults(command=_key)

    openapi = commands.add_parser("openapi", help="print the OpenAPI document")
    openapi.set_defaults(command=_openapi)
    return parser


def _listing(tasks: argparse.ArgumentParser) -> None:
    tasks.add_argument(
        "--url",
        default=os.environ.get("TASKGATE_URL", "http://127.0.0.1:8000"),
        help="address of the gateway (default: $TASKGATE_URL, or http://127.0.0.1:8000)",
    )
    tasks.add_argument("--key", help="the caller's key; $TASKGATE_KEY is safer, since others can see a command line")
    tasks.add_argument("--app", help="name of the app; optional if the key has access to only one")
    tasks.add_argument("--since", help="start of the range: an instant, a date, now, or a duration from now")
    tasks.add_argument("--until", help="end of the range, in the same form")
    tasks.add_argument("--sort", help="scheduled_at or created_at; a leading minus means latest first")
    tasks.add_argument("-q", help="a keyword in the title or description")
    tasks.add_argument("--status", help="only tasks that are pending, dispatching or dispatched")
    tasks.add_argument("--type", help="only tasks of type all, tag or user")
    tasks.add_argument("--offset", type=int, default=0, help="number of tasks to skip")
    tasks.add_argument("--watch", action="store_true", help="follow the list and print its changes until Ctrl-C")
    tasks.add_argument("--limit", type=int, help="maximum number of tasks to list (default: all)")
    tasks.add_argument("--wait", type=int, metavar="SECONDS", help="longest wait for each turn to call the upstream")
    tasks.add_argument("--format", choices=("table", "ndjson"), default="table", help="(default: table)")
    tasks.set_defaults(command=_tasks)


def _listening(parser: argparse.ArgumentParser, *, port: int) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=port, help=f"port to listen on (default: {port})")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sandbox's tasks (default: 1)")
    parser.add_argument("--tasks", type=int, default=2000, help="number of tasks per app (default: 2000)")


class _Version(argparse.Action):
    """Print the version, which is looked up only here because that is slow."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from service import __version__

        print(f"taskgate {__version__}")
        parser.exit()


def _serve(parsed: argparse.Namespace) -> int:
    from service.commands.serve import run

    return run(parsed.config)


def _demo(parsed: argparse.Namespace) -> int:
    from service.sandbox.demo import run_demo

    return run_demo(host=parsed.host, port=parsed.port, seed=parsed.seed, tasks=parsed.tasks)


def _sandbox(parsed: argparse.Namespace) -> int:
    from service.sandbox.serving import run_sandbox
    from service.sandbox.upstream import SandboxOptions

    options = SandboxOptions(
        seed=parsed.seed,
        tasks=parsed.tasks,
        calls=parsed.calls,
        window_s=parsed.window_s,
        range_max_days=parsed.range_max_days,
    )
    return run_sandbox(options, host=parsed.host, port=parsed.port)


def _check(parsed: argparse.Namespace) -> int:
    from service.commands.check import run

    return run(parsed.config, call=parsed.call, alone=parsed.alone, redis=parsed.redis, memory_mib=parsed.memory)


def _usersig(parsed: argparse.Namespace) -> int:
    from service.commands.usersig import run

    return run(parsed.app, parsed.config)


def _key(parsed: argparse.Namespace) -> int:
    from service.commands.key import run

    return run(parsed.name)


def _tasks(parsed: argparse.Namespace) -> int:
    from service.commands.tasks import run
    from service.commands.tasks_client import TasksRequest

    request = TasksRequest(
        url=parsed.url,
        app=parsed.app,
        since=parsed.since,
        until=parsed.until,
        sort=parsed.sort,
        q=parsed.q,
        status=parsed.status,
        type=parsed.type,
        offset=parsed.offset,
        wait_s=parsed.wait,
    )
    return run(request, key=parsed.key, form=parsed.format, limit=parsed.limit, watched=parsed.watch)


def _openapi(parsed: argparse.Namespace) -> int:
    del parsed
    from service.web.openapi.document import openapi_document

    sys.stdout.buffer.write(openapi_document())
    return 0


if __name__ == "__main__":
    sys.exit(main())
