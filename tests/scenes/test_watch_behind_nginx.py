"""A watch behind nginx as Debian installs it: its buffering does not hold events back."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.event_reader import EVENT_STREAM, Mirror, events
from tests.ports import free_port
from tests.scenes.fleet import fleet, key_of, path
from tests.scenes.test_watch import FRESH, Upstream
from tests.servers import Server

pytestmark = pytest.mark.proxy

CONFIGURATION = """
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{gateway}; proxy_http_version 1.1; proxy_set_header Host $host; }}
  }}
}}
"""


async def test_events_are_not_delayed(own_valkey: Server, tmp_path: Path) -> None:
    """With nginx' own settings for buffering, the list and its changes pass as they happen."""
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    async with fleet(own_valkey, replicas=1, **FRESH) as gateways:
        upstream = Upstream(gateways)
        await upstream.replace_all(20)
        port = free_port()
        file = tmp_path / "nginx.conf"
        gateway = gateways.replicas[0].port
        file.write_text(CONFIGURATION.format(directory=tmp_path, port=port, gateway=gateway))
        server = subprocess.Popen([nginx, "-c", str(file)])  # noqa: ASYNC220 - our own command
        try:
            async with asyncio.timeout(60), httpx.AsyncClient(timeout=30) as client:
                url = f"http://127.0.0.1:{port}{path(since='-P90D', until='P90D')}"
                headers = {"Authorization": f"Bearer {key_of('c0')}", **EVENT_STREAM}
                while True:
                    try:
                        await client.get(f"http://127.0.0.1:{port}/livez")
                        break
                    except httpx.TransportError:
                        await asyncio.sleep(0.02)
                async with client.stream("GET", url, headers=headers) as answer:
                    mirror, is_changed = Mirror(), False
                    async for event in events(answer):
                        mirror.take(event)
                        if event.name == "synced" and not is_changed:
                            await upstream.add()
                            is_changed = True
                        if event.name == "added":
                            break
                    assert upstream.matches(mirror)
        finally:
            server.terminate()
            server.wait()
