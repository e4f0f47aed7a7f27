"""Random streams: one root per replication, one independent stream per purpose.

Platforms that are compared under the same seed meet the *same* arrivals and demands (common random numbers), and a
purpose that is added later disturbs no other, because a stream is found by its name and not by its turn.
"""

from hashlib import blake2b

import numpy as np

from simulator.errors import SimulatorError


class RandomStreams:
    """The streams of one replication.

    Args:
        seed: of the whole experiment, an integer that is not negative.
        replication: which independent repetition, 0, 1, 2, …

    Raises:
        SimulatorError: a negative seed or replication.

    The streams are children of `numpy.random.SeedSequence(seed)`, whose hash keeps them independent of each other:
    https://numpy.org/doc/stable/reference/random/parallel.html
    """

    def __init__(self, seed: int, replication: int = 0) -> None:
        if seed < 0:
            raise SimulatorError(f"seed {seed}: give an integer that is not negative")
        if replication < 0:
            raise SimulatorError(f"replication {replication}: replications are counted from 0")
        self.seed = seed
        self.replication = replication

    def stream(self, purpose: str) -> np.random.Generator:
        """A generator for `purpose` (`arrivals`, `demands`, `balancer`, …), always from its beginning."""
        # 64 bits: there are thousands of purposes where each instance has its own, and no two may share a stream.
        name = int.from_bytes(blake2b(purpose.encode(), digest_size=8).digest(), "big")
        key = (self.replication, name >> 32, name & 0xFFFFFFFF)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
