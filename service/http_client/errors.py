"""What can go wrong with an exchange. No text holds a URL, a header field or what was received.

HttpFailure
├── NotConnected         no connection: nothing was sent
│   └── NoneFree         all connections to this host are in use
├── NotAnsweredInTime    the time-out or the deadline came first
├── AnswerBroken         cut off, closed, or not HTTP
├── AnswerEncoded        a content coding, which was not asked for
└── AnswerTooLarge       more bytes than the bound
"""


class HttpFailure(Exception):
    """An exchange has failed."""


class NotConnected(HttpFailure):
    """No connection could be made; nothing was sent."""


class NoneFree(NotConnected):
    """All connections to this host stayed in use; nothing was sent."""


class NotAnsweredInTime(HttpFailure):
    """No answer, or not all of it, in time."""


class AnswerBroken(HttpFailure):
    """The connection broke, or what came is not HTTP."""


class AnswerEncoded(HttpFailure):
    """The answer has a content coding: none is asked for, and none undone, so nothing can grow beyond its bound."""


class AnswerTooLarge(HttpFailure):
    """The answer's body is larger than its bound."""
