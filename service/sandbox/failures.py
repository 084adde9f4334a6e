"""The failed answers that injected faults make of good ones."""

from typing import assert_never

from service.sandbox.faults import (
    CutOff,
    Ending,
    ErrorCode,
    Garbage,
    GarbageKind,
    Hang,
    HangUp,
    HttpStatus,
    Oversize,
    SandboxCall,
)
from service.sandbox.http1 import Disconnection, HttpResponse, SandboxReply
from service.sandbox.refusals import SandboxRefusal, refusal_response

_GARBAGE: dict[GarbageKind, bytes] = {
    "bytes": bytes(range(256)),
    "html": b"<html><body><h1>Welcome</h1></body></html>",
    "empty": b"",
    "array": b"[]",
    "no_code": b'{"ActionStatus":"OK","Total":0,"Tasks":[]}',
    "no_tasks": b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"Total":3}',
    "wrong_types": b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"Total":"3","Tasks":{"TaskID":"x"}}',
}
_GARBAGE_FOR_ONE: dict[GarbageKind, bytes] = _GARBAGE | {
    "no_code": b'{"ActionStatus":"OK","TaskInfo":null}',
    "no_tasks": b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"TaskInfo":{"Title":"no id"}}',
    "wrong_types": b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"TaskInfo":["x"]}',
}


def apply_failure(answer: HttpResponse, ending: Ending, *, call: SandboxCall) -> SandboxReply:
    """Return what a fault makes of a good answer to this call."""
    match ending:
        case ErrorCode(code=code, text=text):
            return refusal_response(SandboxRefusal(code=code, text=text))
        case HttpStatus(status=status):
            page = f"<html><body><h1>{status}</h1></body></html>".encode()
            return HttpResponse(status=status, content_type="text/html", body=page)
        case HangUp(reset=reset):
            return Disconnection(reset=reset)
        case Hang(hold_ms=hold_ms):
            return Disconnection(hold_s=hold_ms / 1000)
        case Garbage(of=of):
            body = (_GARBAGE_FOR_ONE if call == "get" else _GARBAGE)[of]
            return HttpResponse(body=body, content_type="text/html" if of == "html" else "application/json")
        case CutOff(keep=keep, declared=declared):
            return HttpResponse(body=answer.body, send=int(len(answer.body) * keep), declared=declared)
        case Oversize(bytes=size, declared=declared):
            body = b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"Total":0,"Tasks":[]}'
            return HttpResponse(body=body, padding=size - len(body), declared=declared)
    assert_never(ending)
