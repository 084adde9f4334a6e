"""An unchanging list whose first page is refused once, for the programs of docs/clients.md."""

import time

from service.model.errors import WaitTooLong
from service.model.pages import Page, PageRequest
from tests.http.fake_gateway import FakeGateway

RETRY_AFTER_S = 1.0
SAID = [
    "100 of 250 tasks",
    "250 tasks on 3 pages",
    "unchanged",
    "404 /problems/unknown-app",
    "250 tasks in the stream",
]
"""What each program prints."""


class SteadyGateway(FakeGateway):
    """Refuses the very first page. `refused_at_s` and `asked_again_at_s` are times of a monotonic clock."""

    def __init__(self) -> None:
        super().__init__()
        self.refused_at_s: float | None = None
        self.asked_again_at_s: float | None = None

    async def page(self, ask: PageRequest) -> Page:
        """Return the page; refuse the very first request, with a time to retry."""
        if self.refused_at_s is None:
            self.refused_at_s = time.monotonic()
            raise WaitTooLong(place=9, estimate_s=RETRY_AFTER_S, patience_s=0.0)
        self.asked_again_at_s = self.asked_again_at_s or time.monotonic()
        return await super().page(ask)

    def has_waited(self) -> bool:
        """Return whether the client has retried, and not before Retry-After."""
        if self.refused_at_s is None or self.asked_again_at_s is None:
            return False
        return self.asked_again_at_s - self.refused_at_s >= RETRY_AFTER_S
