"""The parameters that name a budget: the app, and the kind of call."""

from service.model.callers import Caller
from service.model.calls import CallKind
from service.model.errors import Fault
from service.web.parameters import Example, Parameter, resolve_app
from service.web.query_string import read_query_string

_CALLS = tuple(kind.value for kind in CallKind)


def call_parameter(description: str) -> Parameter[CallKind]:
    """Return the parameter `call`, shared by all resources that belong to one kind of call."""
    return Parameter(
        name="call",
        read=read_call,
        description=f"{description} `list` is for pages, streams and watches, `get` for single tasks: the upstream "
        "limits each separately.",
        examples=(Example(value=CallKind.GET.value, summary="calls for single tasks"),),
        schema={"type": "string", "enum": list(_CALLS), "default": CallKind.LIST.value},
    )


def read_call(text: str) -> CallKind:
    """Return the kind of call. Raise ValueError with a message for the caller."""
    if text not in _CALLS:
        raise ValueError(f"must be one of {', '.join(_CALLS)}")
    return CallKind(text)


def read_budget(query_string: bytes, *, caller: Caller) -> tuple[str, CallKind]:
    """Return the app and the kind of call. Raise BadRequest, UnknownApp or NotAllowed."""
    texts, faults = read_query_string(query_string, known={b"app": "app", b"call": "call"})
    kind = CallKind.LIST
    if "call" in texts:
        try:
            kind = read_call(texts["call"])
        except ValueError as exc:
            faults.append(Fault(parameter="call", detail=str(exc)))
    return resolve_app(texts.get("app"), caller, faults=faults), kind
