"""Trigger the problems with the given names, as a response and in the last line of a stream, and print them."""

import json
import sys

from taskgate_client import AuthenticatedClient
from taskgate_client.api.problems import get_problem
from taskgate_client.api.tasks import list_tasks
from taskgate_client.models import LastLine, Problem


def show(problem: object) -> None:
    """Print a problem as JSON. Raises TypeError where it is none."""
    if not isinstance(problem, Problem):
        raise TypeError(f"{problem!r} is no problem")
    print(json.dumps(problem.to_dict()))


url, early, late = sys.argv[1], sys.argv[2].split(), sys.argv[3].split()
client = AuthenticatedClient(base_url=url, token="one-key")
for slug in early:
    show(list_tasks.sync(client=client, q=slug))
show(get_problem.sync("nowhere", client=client))
for slug in late:
    answer = client.get_httpx_client().get("/tasks", params={"q": slug}, headers={"Accept": "application/x-ndjson"})
    show(LastLine.from_dict(json.loads(answer.content.splitlines()[-1])).end.problem)
