"""`GET /tasks/{id}`: one task."""

import re
from collections.abc import Callable
from typing import Any

from litestar import Request, get
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from service.model.callers import Caller
from service.model.errors import BadRequest, Fault
from service.model.pages import TaskRequest
from service.observe.outcomes import TASK_ROUTE, outcome_of_answer
from service.web.cacheable_response import Rendered, cacheable_response
from service.web.hangup import unless_hung_up
from service.web.headers.accept import choose_media_type
from service.web.headers.cache_control import cache_directives_of, patience_of
from service.web.headers.conditional import weak_tag
from service.web.headers.encoding import Encodings
from service.web.identify import Access, identify
from service.web.in_flight import InFlight
from service.web.interfaces import Callers, GatewayAPI
from service.web.parameters import NO_APP, check_access, only_app
from service.web.query_string import read_query_string
from service.web.responses import JSON, NoResponse, Response
from service.web.settings import WebSettings

ID_MAX = 2**63 - 1
ID_PATTERN = r"^[1-9][0-9]{0,18}$"

_ID = re.compile(ID_PATTERN)
_MEDIA_TYPES = (JSON.decode(),)
_BAD_ID = Fault(parameter="id", detail=f"must be an integer from 1 to {ID_MAX}, digits only, without leading zeros")


def task_route(
    gateway: GatewayAPI,
    callers: Callers,
    settings: Callable[[], WebSettings],
    *,
    clock: Callable[[], float],
    in_flight: InFlight,
    encodings: Encodings,
) -> HTTPRouteHandler:
    """Return the route. `settings` returns the current settings, `clock` seconds since the epoch."""

    @get(TASK_ROUTE.replace("{id}", "{id:str}"))
    async def get_task(request: Request[Any, Any, Any]) -> Response:
        """Parse and check the request, and return the task; `problems/handlers.py` handles errors."""
        caller, context = await identify(request.scope, callers)
        fields = context.fields
        patience = patience_of(fields, caller=caller, default_s=settings().wait_default_s)
        context.wait_applied_s = patience.applied_s
        if choose_media_type(fields.get(b"accept"), _MEDIA_TYPES) is None:
            raise HTTPException(status_code=406)
        app, task_id = read_task_parameters(request.path_params["id"], request.scope["query_string"], caller=caller)
        context.app = app
        directives = cache_directives_of(fields, caller=caller)
        task_request = TaskRequest(
            caller=caller,
            app=app,
            id=task_id,
            patience_s=patience.wait_s,
            directives=directives,
            origin=context.origin,
        )
        access = Access(context, callers, caller, app=app, clock=clock)
        with in_flight.track(caller):
            work = access.during(gateway.task(task_request))
            found = await unless_hung_up(work, receive=request.receive, context=context)
        if found is None:
            return NoResponse()
        context.outcome = outcome_of_answer(found, wait_applied_s=patience.applied_s)
        etag = weak_tag(found.body)
        return cacheable_response(
            found,
            Rendered(body=found.body, etag=etag, key=etag),
            app=found.app,
            directives=directives,
            context=context,
            encodings=encodings,
            now_s=clock(),
        )

    return get_task


def read_task_parameters(id_text: str, query_string: bytes, *, caller: Caller) -> tuple[str, int]:
    """Return the app and the task's id. Raise BadRequest with all faults, UnknownApp or NotAllowed."""
    texts, faults = read_query_string(query_string, known={b"app": "app"})
    if not _ID.fullmatch(id_text) or int(id_text) > ID_MAX:
        faults.insert(0, _BAD_ID)
    if "app" not in texts and all(fault.parameter != "app" for fault in faults) and len(caller.apps) > 1:
        faults.append(NO_APP)
    if faults:
        raise BadRequest(*faults)
    return check_access(texts.get("app", "") or only_app(caller), caller), int(id_text)
