"""Problem responses of the contract: each described once and referenced by every operation that may return it."""

from collections.abc import Sequence
from http import HTTPStatus

from service.web.openapi.examples import problem_example
from service.web.openapi.fields import BUDGET, field_refs
from service.web.openapi.schemas import Json
from service.web.problems.from_errors import PROBLEM_JSON
from service.web.problems.types import PROBLEM_TYPES, ProblemType

OF_TASKS = (
    "bad-request unauthenticated not-allowed keys-unavailable unknown-app not-acceptable content-too-large "
    "uri-too-long query-refused range-too-wide line-full "
    "too-many-watchers headers-too-large failed upstream-failed upstream-unreachable "
    "upstream-broken upstream-http-status upstream-refused calls-stopped "
    "throttled wait-too-long no-fetch-now shutting-down store-unavailable nothing-stored upstream-timeout"
)
OF_TASK = (
    "bad-request unauthenticated not-allowed keys-unavailable unknown-app unknown-task not-acceptable "
    "content-too-large uri-too-long query-refused line-full headers-too-large failed upstream-failed "
    "upstream-unreachable upstream-broken upstream-http-status upstream-refused calls-stopped "
    "throttled wait-too-long no-fetch-now shutting-down store-unavailable nothing-stored upstream-timeout"
)
OF_APPS = "unauthenticated not-allowed keys-unavailable content-too-large uri-too-long headers-too-large failed"
OF_BUDGET = OF_USAGE = (
    "bad-request unauthenticated not-allowed keys-unavailable unknown-app content-too-large uri-too-long "
    "headers-too-large failed"
)
OF_CACHE = (
    "bad-request unauthenticated not-allowed keys-unavailable unknown-app content-too-large uri-too-long "
    "headers-too-large failed store-unavailable"
)
OF_OPEN = "content-too-large uri-too-long headers-too-large failed"
OF_PROBLEM = "not-found"
WAITED = ("PreferenceApplied",)
"""Additional header fields of problems from an operation that honours `Prefer: wait`."""

_ALL: tuple[tuple[str, tuple[str, ...]], ...] = (
    (OF_TASKS, WAITED),
    (OF_TASK, WAITED),
    *((slugs, ()) for slugs in (OF_APPS, OF_BUDGET, OF_CACHE, OF_OPEN, OF_PROBLEM)),
)
_RETRYABLE = frozenset(
    (
        *("keys-unavailable", "line-full", "too-many-watchers", "throttled", "wait-too-long", "calls-stopped"),
        *("no-fetch-now", "shutting-down", "store-unavailable", "nothing-stored"),
    )
)
_WITH_BUDGET_FIELDS = frozenset(
    ("line-full", "wait-too-long", "throttled", "calls-stopped", "query-refused", "unknown-task")
) | frozenset(f"upstream-{what}" for what in ("timeout", "unreachable", "broken", "http-status", "refused"))


def problem_refs(slugs: str, *fields: str) -> Json:
    """Return references to these problems' responses by status; `fields` are header fields added by the operation."""
    return {
        status: {"$ref": f"#/components/responses/{_name(types, fields)}"}
        for status, types in sorted(_by_status(slugs).items())
    }


def problem_responses() -> Json:
    """Return all problem responses by name. Raise ValueError if two would have the same name."""
    made: Json = {}
    for slugs, fields in _ALL:
        for types in _by_status(slugs).values():
            name, response = _name(types, fields), _response(types, fields)
            if made.setdefault(name, response) != response:
                raise ValueError(f"two responses would be called {name}")
    return dict(sorted(made.items()))


def problem_examples() -> Json:
    """Return one example per problem type that any response shows, by name."""
    slugs = {slug for slugs, _ in _ALL for slug in slugs.split()}
    return {
        slug: {
            "summary": each.title,
            "description": each.remedy,
            "value": problem_example(each),
        }
        for slug, each in sorted(PROBLEM_TYPES.items())
        if slug in slugs
    }


def _by_status(slugs: str) -> dict[str, list[ProblemType]]:
    by_status: dict[str, list[ProblemType]] = {}
    for slug in slugs.split():
        by_status.setdefault(str(PROBLEM_TYPES[slug].status), []).append(PROBLEM_TYPES[slug])
    return by_status


def _name(types: Sequence[ProblemType], fields: Sequence[str]) -> str:
    """Return `LineFull` or `KeysUnavailableOrStoreUnavailable`; for more than two types the status, as `BadGateway`."""
    slugs = [each.slug.title().replace("-", "") for each in types]
    phrase = HTTPStatus(types[0].status).phrase.title().replace(" ", "")
    return ("Or".join(slugs) if len(slugs) <= 2 else phrase) + ("AfterWait" if fields else "")


def _response(types: Sequence[ProblemType], operation_fields: Sequence[str]) -> Json:
    slugs = {each.slug for each in types}
    fields = [
        *operation_fields,
        *(BUDGET if slugs & _WITH_BUDGET_FIELDS else ()),
        *(["RetryAfter"] if slugs & _RETRYABLE else []),
        *(["WWWAuthenticate"] if "unauthenticated" in slugs else []),
    ]
    return {
        "description": "; ".join(each.title for each in types) + ".",
        "headers": field_refs(*fields),
        "content": {
            PROBLEM_JSON.decode(): {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {each.slug: {"$ref": f"#/components/examples/{each.slug}"} for each in types},
            }
        },
    }
