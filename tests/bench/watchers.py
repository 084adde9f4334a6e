"""The memory of idle watchers of one list: `python -m tests.bench.watchers [COUNT]` prints memory for each."""

import asyncio
import sys

from tests.bench.machine import resident_mib
from tests.event_reader import EVENT_STREAM
from tests.scenes.fleet import Fleet, fleet, key_of, path
from tests.servers import Server

COUNT = 1_000
TASKS = 100
AT_ONCE = 50
"""How many watches are opened at the same time."""
IDLE_S = 45.0
"""How long the watchers are idle between the two measurements: three renewals of the list."""


async def _watch(gateways: Fleet, number: int) -> asyncio.StreamWriter:
    """Open one watch and read it until `synced`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateways.replicas[0].port, limit=2**20)
    fields = {"Host": "bench", "Authorization": f"Bearer {key_of(f'c{number % 10}')}", **EVENT_STREAM}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"GET {path(since='-P90D', until='P90D')} HTTP/1.1\r\n{lines}\r\n".encode())
    await reader.readuntil(b"event: synced")
    return writer


async def main(count: int) -> None:
    """Measure and print."""
    bounds = {
        "watch": {"caller_watchers_max": count, "watchers_max": max(count + 10, 10_000)},
        "server": {"connections_max": count + 100},
    }
    with Server() as valkey:
        async with fleet(valkey, replicas=1, tasks=TASKS, **bounds) as gateways:
            pid = gateways.replicas[0].pid
            writers = [await _watch(gateways, number) for number in range(10)]
            before = resident_mib(pid)
            for start in range(10, count + 10, AT_ONCE):
                numbers = range(start, min(start + AT_ONCE, count + 10))
                writers += await asyncio.gather(*(_watch(gateways, number) for number in numbers))
            after = resident_mib(pid)
            await asyncio.sleep(IDLE_S)
            later = resident_mib(pid)
            each = (after - before) * 1024 / count
            print(f"{count} idle watchers of a list of {TASKS} tasks: {before:.0f} MiB before, ", end="")
            print(f"{after:.0f} MiB after, {each:.0f} KiB each; {later:.0f} MiB {IDLE_S:.0f} s later")
            for writer in writers:
                writer.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT))
