"""A second reading of header fields, written apart from ours: slow, strict, character by character."""

TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
SPACE = frozenset(b" \t")

Item = tuple[str, str | None, list[tuple[str, str]]]
"""A name in lower case, its value and its parameters."""


class NotStrict(Exception):
    """The field is not of the strict grammar."""


class Scanner:
    """Reads a field from left to right."""

    def __init__(self, field: bytes) -> None:
        self._field = field
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        """Whether all is read."""
        return self._at >= len(self._field)

    def takes(self, byte: bytes) -> bool:
        """Read this byte, if it is next."""
        found = self._field[self._at : self._at + 1] == byte
        self._at += found
        return found

    def spaces(self) -> None:
        """Read spaces and tabs."""
        while not self.is_at_end and self._field[self._at] in SPACE:
            self._at += 1

    def token(self) -> str:
        """Read a token."""
        start = self._at
        while not self.is_at_end and self._field[self._at] in TOKEN:
            self._at += 1
        if start == self._at:
            raise NotStrict
        return self._field[start : self._at].decode()

    def value(self) -> str:
        """Read a token or a quoted string without escapes or odd bytes."""
        if not self.takes(b'"'):
            return self.token()
        start = self._at
        while not self.takes(b'"'):
            if self.is_at_end or not 32 <= self._field[self._at] <= 126 or self._field[self._at] == 92:
                raise NotStrict
            self._at += 1
        return self._field[start : self._at - 1].decode()


def items_of(field: bytes, *, with_slash: bool = False) -> list[Item]:
    """Return the items of a list (RFC 9110, 5.6.1): NAME or NAME=VALUE, then `;NAME=VALUE`s. Raise NotStrict."""
    scanner = Scanner(field)
    items: list[Item] = []
    while True:
        scanner.spaces()
        if scanner.is_at_end:
            return items
        if scanner.takes(b","):
            continue
        name = scanner.token()
        if with_slash:
            if not scanner.takes(b"/"):
                raise NotStrict
            name += "/" + scanner.token()
        value = scanner.value() if scanner.takes(b"=") else None
        parameters = []
        scanner.spaces()
        while scanner.takes(b";"):
            scanner.spaces()
            parameter = scanner.token()
            if not scanner.takes(b"="):
                raise NotStrict
            parameters.append((parameter.lower(), scanner.value()))
            scanner.spaces()
        items.append((name.lower(), value, parameters))
        if not scanner.is_at_end and not scanner.takes(b","):
            raise NotStrict


def weight_of(item: Item) -> float:
    """Return the weight of an item whose only parameter, if any, is `q` with three digits at most. Raise NotStrict."""
    _, value, parameters = item
    if value is not None or len(parameters) > 1:
        raise NotStrict
    if not parameters:
        return 1.0
    [(name, text)] = parameters
    whole, point, digits = text.partition(".")
    is_weight = whole in ("0", "1") and len(digits) <= 3 and all(digit in "0123456789" for digit in digits)
    if name != "q" or not is_weight or (whole == "1" and digits.strip("0")) or (digits and not point):
        raise NotStrict
    return float(text)


def tags_of(field: bytes) -> list[bytes]:
    """Return the opaque tags of a list of entity tags (RFC 9110, 8.8.3). Raise NotStrict."""
    tags = []
    rest = field.strip(b" \t")
    while rest:
        if rest.startswith(b","):
            rest = rest[1:].lstrip(b" \t")
            continue
        rest = rest.removeprefix(b"W/")
        opaque, quote, after = rest[1:].partition(b'"')
        if not rest.startswith(b'"') or not quote or any(byte <= 0x20 or byte == 0x7F for byte in opaque):
            raise NotStrict
        tags.append(opaque)
        rest = after.lstrip(b" \t")
        if rest and not rest.startswith(b","):
            raise NotStrict
    if not tags:
        raise NotStrict
    return tags
