"""What an error says can be put in other words, and it stays the error that it is."""

import pytest

from real_engine.errors import EngineError, NotFound
from real_engine.registry.transport import Unreachable


@pytest.mark.parametrize("error", [NotFound("x"), Unreachable("GET", "http://127.0.0.1:9/v2/", "refused", True)])
def test_another_message_and_the_same_kind(error: EngineError) -> None:
    other = error.reworded(f"invalid from flag value x: {error}")
    assert (type(error), f"invalid from flag value x: {error}") == (type(other), str(other))
    assert vars(error) == vars(other)
