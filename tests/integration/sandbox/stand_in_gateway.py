"""A stand-in for the gateway, run as a process by the demo's tests: it has a worker, as the real one does.

STAND_IN: `good`; `deaf` ignores SIGTERM; `dies` exits with 3 at once; `late` is never ready; `falls` dies when asked.
"""

import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import yaml

mode = os.environ["STAND_IN"]
settings = yaml.safe_load(Path(os.environ["TASKGATE_CONFIG"]).read_text(encoding="utf-8"))
if mode == "dies":
    sys.exit(3)


class Handler(BaseHTTPRequestHandler):
    """Ready at once, except for `late`; GET /die ends the process with status 4."""

    def do_GET(self) -> None:
        if self.path == "/die":
            os._exit(4)
        self.send_response(503 if mode == "late" else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing: the tests read the demo's own output."""


if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
HTTPServer((settings["server"]["host"], settings["server"]["port"]), Handler).serve_forever()
