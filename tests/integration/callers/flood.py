"""One caller's flood, in a separate process: `python flood.py PORT KEY PATH COUNT`; prints the statuses by count."""

import asyncio
import json
import resource
import sys
from collections import Counter


async def ask(port: int, key: str, path: str) -> str:
    """Return the status of one answer."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        fields = f"Host: x\r\nConnection: close\r\nPrefer: wait=20\r\nAuthorization: Bearer {key}"
        writer.write(f"GET {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode())
        raw = await reader.read()
        writer.close()
    except OSError as exc:
        return type(exc).__name__
    return raw[9:12].decode() or "nothing"


async def main() -> None:
    """Send all requests at once."""
    port, key, path, count = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    statuses = await asyncio.gather(*(ask(port, key, f"{path}{number}") for number in range(count)))
    print(json.dumps(Counter(statuses)))


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main())
