"""`taskgate check`: is the configuration good, and with `--call`, does the upstream agree?"""

import asyncio
import os
import time

from service.commands.configured import configured
from service.configuration import Loaded
from service.model.errors import UpstreamError
from service.model.queries import Query, parse_moment, parse_until
from service.settings import Settings


def run(config: str, *, call: bool) -> int:
    """Tell all faults and warnings, then what one call for each app brings."""
    loaded = configured(config)
    if loaded is None:
        return 2
    print(f"ok: {_count(loaded)}")
    return asyncio.run(_call_all(loaded.settings)) if call else 0


def _count(loaded: Loaded) -> str:
    apps, callers = len(loaded.settings.apps), len(loaded.settings.callers)
    return f"{apps} app{'s' * (apps != 1)}, {callers} caller{'s' * (callers != 1)}"


async def _call_all(settings: Settings) -> int:
    """One call for each app, outside the budget; 1 where one of them failed."""
    from service.telemetry.logs import configure
    from service.upstream.apps import upstream_app_of
    from service.upstream.client import Client
    from service.upstream.secret import secret_of
    from service.upstream.signer import Signer
    from service.upstream.verdicts import explain

    configure("critical", as_json=False)  # what is wrong is told here, in plain words
    signers = [
        Signer(
            upstream_app_of(name, app, backup_hosts=settings.upstream.backup_hosts),
            secret_of(app, os.environ),
            valid_s=settings.upstream.signature_valid_s,
        )
        for name, app in settings.apps.items()
    ]
    failed = 0
    size = settings.cache.block_size
    async with Client(settings.upstream, signers=signers) as client:
        for signer in signers:
            query = _query(signer.app.name, settings)
            range_ = query.range_at(time.time(), align_s=settings.cache.align_s)
            try:
                listing = await client.fetch(signer.app, query, range_, offset=0, want=size, before_send=_at_once)
            except UpstreamError as exc:
                failed += 1
                print(f"{signer.app.name}: {explain(exc)}")
            else:
                got, expected = len(listing.tasks) + listing.left_out, min(size, listing.total)
                advice = "" if got >= expected else f"; set cache.block_size to {got}: one call gives no more"
                print(f"{signer.app.name}: ok, {listing.total} tasks from {query.since} to {query.until}{advice}")
    return 1 if failed else 0


async def _at_once() -> None:
    """Nothing to wait for before the call."""


def _query(app: str, settings: Settings) -> Query:
    return Query(app=app, since=parse_moment(settings.query.since), until=parse_until(settings.query.until))
