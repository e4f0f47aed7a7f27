"""What the engine raises when it cannot do what was asked: one clear line a person can act on."""


class EngineError(Exception):
    """The engine could not do what was asked. The message names what failed, where, and what to do, in one line."""
