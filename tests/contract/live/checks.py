"""Additional checks for Schemathesis, which loads this file by its name in `SCHEMATHESIS_HOOKS`."""

import schemathesis

OF_THE_CONNECTION = {
    "connection",
    "content-length",
    "content-type",
    "date",
    "keep-alive",
    "server",
    "transfer-encoding",
}


@schemathesis.check
def no_undocumented_headers(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """A response with a documented status has no header field that the contract does not name."""
    responses = case.operation.definition.raw["responses"]
    documented = responses.get(str(response.status_code))
    if documented is not None and "$ref" in documented:
        shared = case.operation.schema.raw_schema["components"]["responses"]
        documented = shared[documented["$ref"].rpartition("/")[2]]
    if documented is None or case.method != case.operation.method.upper():
        return
    named = {name.lower() for name in documented.get("headers", {})}
    extra = {name.lower() for name in response.headers} - named - OF_THE_CONNECTION
    if extra:
        raise AssertionError(f"{response.status_code} carries undocumented fields: {', '.join(sorted(extra))}")
