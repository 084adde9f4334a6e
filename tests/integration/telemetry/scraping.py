"""Scrapes metrics and reads them with the official parsers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_plain

from tests.http.site import raw

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@dataclass(frozen=True)
class Sample:
    """One line."""

    name: str
    labels: Mapping[str, str]
    value: float


class Scrape:
    """The result of one scrape."""

    def __init__(self, families: Iterator[Any]) -> None:
        found = list(families)
        self.families = {f"{family.name}_total" if family.type == "counter" else family.name for family in found}
        self.samples = [
            Sample(name=sample.name, labels=sample.labels, value=sample.value)
            for family in found
            for sample in family.samples
        ]

    def of(self, name: str, **labels: str) -> list[Sample]:
        """All samples of that name with these labels."""
        return [s for s in self.samples if s.name == name and labels.items() <= s.labels.items()]

    def sum(self, name: str, **labels: str) -> float:
        """Return their sum."""
        return sum(sample.value for sample in self.of(name, **labels))

    def series(self, prefix: str = "taskgate_") -> set[tuple[object, ...]]:
        """All of ours, by name and labels."""
        return {(s.name, *sorted(s.labels.items())) for s in self.samples if s.name.startswith(prefix)}


def read(kind: str, body: str) -> Scrape:
    """Parse a text by its type."""
    parse: Callable[[str], Iterator[Any]] = read_openmetrics if kind.startswith("application/open") else read_plain
    return Scrape(parse(body))


async def scraped(port: int, *, accept: str = "") -> Scrape:
    """Scrape a port."""
    answer = await raw(
        port, f"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: {accept}\r\n\r\n".encode()
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    assert status == "HTTP/1.1 200 OK"
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert int(fields["content-length"]) == len(body)
    return read(fields["content-type"], body.decode())
