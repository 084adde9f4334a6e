"""`taskgate sandbox` and `taskgate demo`: Taskgate without the real upstream."""


def run_sandbox(
    *, host: str, port: int, seed: int, tasks: int, calls: int, window_s: float, range_max_days: int
) -> int:
    """Serve the sandbox upstream until Ctrl-C."""
    from service.sandbox import serving
    from service.sandbox.upstream import SandboxOptions

    options = SandboxOptions(seed=seed, tasks=tasks, calls=calls, window_s=window_s, range_max_days=range_max_days)
    return serving.run_sandbox(options, host=host, port=port)


def run_demo(*, host: str, port: int, seed: int, tasks: int) -> int:
    """Run an embedded Valkey, the sandbox and a gateway until Ctrl-C."""
    from service.sandbox import demo

    return demo.run_demo(host=host, port=port, seed=seed, tasks=tasks)
