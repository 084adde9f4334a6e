"""FastAPI on uvicorn with one redis-py GET per request; runs in a separate environment (requirements/bench.txt)."""

import sys
from typing import Annotated

import redis.asyncio
import uvicorn
from fastapi import FastAPI, Query, Response

app = FastAPI()
client = redis.asyncio.Redis(port=int(sys.argv[2]))


@app.get("/tasks")
async def tasks(
    app: str,
    since: str | None = None,
    until: str | None = None,
    sort: str = "-scheduled_at",
    q: str | None = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """The bytes that Redis has."""
    return Response(await client.get("page"), media_type="application/json")


uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="error")
