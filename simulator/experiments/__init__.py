"""Runs a scenario: replications, platforms side by side, and sweeps over its keys; in this process or in many.

Serial and parallel runs give identical results, because a replication's random numbers come from the seed and its
number alone, and the platforms of a comparison and the points of a sweep meet the same ones.
"""

from simulator.experiments.replications import Progress, compare, run
from simulator.experiments.sweeps import Sweep, SweepPlan, sweep

__all__ = ["Progress", "Sweep", "SweepPlan", "compare", "run", "sweep"]
