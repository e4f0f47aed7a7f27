"""Moments of distributions whose sample means converge too slowly to be believed."""

import math

from simulator.errors import SimulatorError
from simulator.evidence.theory.checks import check_positive


def bounded_pareto_moment(shape: float, minimum: float, maximum: float, order: float = 1.0) -> float:
    """E[X^order] of the Pareto distribution of tail index `shape`, cut to [minimum, maximum].

    Its density is proportional to x^(-shape - 1) there. The distribution has all moments, but where `order` exceeds
    `shape` nearly all of a moment comes from the few largest values.

    Args:
        shape: tail index, above 0.
        minimum, maximum: 0 < minimum < maximum.
        order: of the moment: 1 for the mean, 2 for the second moment.

    Raises:
        SimulatorError: a shape or minimum that is not positive, or a maximum that is not above the minimum.

    Source: Harchol-Balter, Performance Modeling and Design of Computer Systems (2013), chapter 20.
    """
    check_positive("shape", shape)
    check_positive("minimum", minimum)
    if not (math.isfinite(maximum) and maximum > minimum):
        raise SimulatorError(f"maximum {maximum}: must be a finite number above `minimum` {minimum:g}")
    span = math.log(maximum / minimum)
    # With x = minimum e^u the moment is an integral of exponentials. `expm1` keeps its digits near order = shape.
    tilt = order - shape
    grown = span if tilt == 0 else math.expm1(tilt * span) / tilt
    return float(minimum**order) * shape * grown / -math.expm1(-shape * span)


def bounded_pareto_coefficient_of_variation(shape: float, minimum: float, maximum: float) -> float:
    """Standard deviation over mean of the bounded Pareto distribution.

    Args, raises: as `bounded_pareto_moment`.
    """
    mean = bounded_pareto_moment(shape, minimum, maximum)
    return math.sqrt(max(bounded_pareto_moment(shape, minimum, maximum, 2.0) / mean**2 - 1, 0.0))
