"""Birth-and-death chains: the chance of each state, which is how often a queue is so long."""

import numpy as np
from numpy.typing import NDArray


def chances_of_states(log_steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The stationary chance of each state 0 … n.

    Each state is as likely as the one below it times (rate up from there) / (rate down from here). The products are
    formed as sums of logarithms, which neither overflow nor vanish.

    Args:
        log_steps: natural logarithm of that ratio for the states 1 … n, shape (n,).

    Returns:
        Chances that add up to 1, shape (n + 1,).

    Source: Kleinrock, Queueing Systems, volume 1 (1975), section 3.1.
    """
    logs = np.concatenate([[0.0], np.cumsum(log_steps)])
    weights = np.exp(logs - logs.max())
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances
