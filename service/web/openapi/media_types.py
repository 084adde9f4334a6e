"""Media type objects of the contract's responses."""

from service.web.openapi.examples import stream_examples, watch_example
from service.web.openapi.schemas import Json
from service.web.parameters import NDJSON
from service.web.problems.types import ProblemType
from service.web.routes.problems import problem_types_html, problem_types_text
from service.web.server_sent_events import EVENT_STREAM


def json_content(schema: str, example: object) -> Json:
    """Return the media type object of JSON with the named schema."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}}


def stream_content() -> Json:
    """Return the media type object of newline-delimited JSON; to JSON Schema it is text with one value per line."""
    each: Json = {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Task", "LastLine")]}
    schema = {
        "type": "string",
        "description": "Lines separated by line feeds: one task per line, and a last line that says how the stream "
        "ended.",
        "contentMediaType": NDJSON,
        "contentSchema": each,
    }
    ended, refused = stream_examples()
    return {
        NDJSON: {
            "schema": schema,
            "examples": {
                "complete": {"summary": "A complete list of one task", "value": ended},
                "incomplete": {"summary": "A stream that ended early, and where to continue", "value": refused},
            },
        }
    }


def watch_content() -> Json:
    """Return the media type object of server-sent events, which OpenAPI 3.1 can only describe as text."""
    schema = {
        "type": "string",
        "description": "Events, each with `id`, `event` and `data`: `task` and `added` (a Task), `changed` (the names "
        "of the changed fields, and the Task), `removed` (id, last status, and a reason: `deleted`, `filter` or "
        "`range`), `synced` (count, total, as_of, age_seconds), `stale` (the list can't be renewed: as_of, problem), "
        "`reset` (the whole list follows), `end` (problem). Comments keep the connection alive.",
        "contentMediaType": EVENT_STREAM,
    }
    return {EVENT_STREAM: {"schema": schema, "example": watch_example()}}


def text_content(*types: ProblemType) -> Json:
    """Return the media type objects of problem type descriptions: plain text for programs, HTML for browsers."""
    texts = {"text/plain": problem_types_text(types), "text/html": problem_types_html(types)}
    return {form: {"schema": {"type": "string"}, "example": text} for form, text in texts.items()}
