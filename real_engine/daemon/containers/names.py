"""Names for containers that got none: an adjective and a kind of Korean vessel."""

import random
from collections.abc import Callable
from pathlib import Path

_WORDS = dict(line.split(":") for line in Path(__file__).with_suffix(".txt").read_text(encoding="ascii").splitlines())
_ADJECTIVES, _VESSELS = _WORDS["adjectives"].split(), _WORDS["vessels"].split()


def random_name(taken: Callable[[str], bool]) -> str:
    """A name that is free: `taken` tells whether one is not."""
    for attempt in range(1000):
        name = f"{random.choice(_ADJECTIVES)}_{random.choice(_VESSELS)}"  # noqa: S311 -- a name, no secret
        if attempt >= 5:
            name += str(random.randrange(10 ** (1 + attempt // 50)))  # noqa: S311
        if not taken(name):
            return name
    raise RuntimeError("a thousand names were taken")
