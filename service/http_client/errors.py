"""Errors of an exchange. No text holds a URL, a header field or received bytes.

HttpFailure
├── NotConnected         no connection: nothing was sent
│   └── NoneFree         all connections to this host are in use
├── NotAnsweredInTime    the timeout or the deadline came first
├── AnswerBroken         cut off, closed, or not HTTP
├── AnswerEncoded        a content coding, which was not requested
└── AnswerTooLarge       more bytes than the bound
"""


class HttpFailure(Exception):
    """An exchange failed."""


class NotConnected(HttpFailure):
    """No connection could be made; nothing was sent."""


class NoneFree(NotConnected):
    """All connections to this host stayed in use; nothing was sent."""


class NotAnsweredInTime(HttpFailure):
    """The answer, or part of it, did not arrive in time."""


class AnswerBroken(HttpFailure):
    """The connection broke, or the received bytes are not HTTP."""


class AnswerEncoded(HttpFailure):
    """The answer has a content coding. None is requested and none is decoded, so nothing can grow beyond its bound."""


class AnswerTooLarge(HttpFailure):
    """The answer's body is larger than its bound."""
