"""The parser for comma-separated lists in header fields (RFC 9110, 5.6.1)."""

import re
from collections.abc import Iterator

import msgspec

ITEMS_MAX = 64
"""Items beyond this number are ignored."""

# All quantifiers are possessive, so that malformed fields fail in linear time.
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_ITEM = re.compile(
    rf"[ \t]*+(?:({_NAME}(?:/{_NAME})?+)(?:[ \t]*+=[ \t]*+({_NAME}|{_QUOTED}))?+)?+((?:[^,\"]|{_QUOTED})*+)(?:,|$)",
    re.DOTALL,
)
_STRINGS = re.compile(_QUOTED)
_ESCAPED = re.compile(r"\\(.)")
_WEIGHT = re.compile(r";[ \t]*+q=(?:(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)(?![^ \t;])|)", re.IGNORECASE)


class ListItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item: `name` in lower case (a token, or two separated by a slash), `value` without quotes, and `rest`.

    `rest` is the text after name and value: empty, parameters that begin with a semicolon, or unparsable text.
    """

    name: str
    value: str | None
    rest: str

    @property
    def has_valid_rest(self) -> bool:
        """Whether `rest` is empty or consists of parameters."""
        return not self.rest or self.rest.startswith(";")

    @property
    def weight(self) -> float | None:
        """The parameter `q` (RFC 9110, 12.4.2), 1 if there is none, None if the item is malformed."""
        if self.value is not None or not self.has_valid_rest:
            return None
        found = _WEIGHT.search(_STRINGS.sub("", self.rest))
        if found is None:
            return 1.0
        return float(found[1]) if found[1] else None


def list_items(field: bytes) -> Iterator[ListItem]:
    """Yield the items that begin with a name, in order. Parsing stops at the first malformed item."""
    text = field.decode("latin-1")
    position = 0
    for _ in range(ITEMS_MAX):
        item = _ITEM.match(text, position)
        if item is None or position >= len(text):
            return
        position = item.end()
        name, value, rest = item.groups()
        if name is not None:
            if value is not None and value.startswith('"'):
                value = _ESCAPED.sub(r"\1", value[1:-1])
            yield ListItem(name=name.lower(), value=value, rest=rest.strip())
