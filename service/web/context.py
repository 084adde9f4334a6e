"""Access to the context of the current request."""

from litestar.types import Scope

from service.observe.request import RequestContext


def context_of(scope: Scope) -> RequestContext:
    """Return the context that `RequestMiddleware` attached to the request of this scope."""
    context = scope["state"]["context"]
    assert isinstance(context, RequestContext)  # noqa: S101 - narrows the type; only the middleware sets it
    return context
