"""Where a number comes from, which is told wherever it is shown."""

from typing import Literal

Kind = Literal["measured", "simulated", "published"]
"""Where a number comes from. A published one has its source beside it."""
