"""Errors of the engine: each is one line that names what was wrong, where, and what to do.

Their kinds say whose fault it was. The daemon turns a kind into a status of its REST API; nothing below it knows HTTP.
"""

from typing import Self


class EngineError(Exception):
    """The engine could not do what was asked; the message is meant for the person who asked."""

    def reworded(self, text: str) -> Self:
        """The same error with another message, whatever its kind is made from."""
        other = type(self).__new__(type(self), text)
        other.__dict__.update(self.__dict__)
        return other


class InvalidParameter(EngineError):
    """What was asked makes no sense as it stands (400)."""


class Unauthorized(EngineError):
    """Who asked has not said who they are, or not convincingly (401)."""


class Forbidden(EngineError):
    """It is understood, and not allowed (403)."""


class NotFound(EngineError):
    """There is nothing of that name (404)."""


class Conflict(EngineError):
    """It goes against the present state: a name or port is taken, a thing is in use (409)."""


class NotModified(EngineError):
    """It is so already (304): a container that runs was started, one that has stopped was stopped."""


class NotImplementedHere(EngineError):
    """This engine, or this kernel, cannot do it at all (501)."""


class Unavailable(EngineError):
    """It cannot be done now: this node is no swarm manager, something needed is away (503)."""
