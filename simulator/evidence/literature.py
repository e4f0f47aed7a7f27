"""All that was published and the model can be held against, in one: the curves 1 to 5, and the table of scaling."""

from simulator.evidence.curves import CurvePoint, validate_curves
from simulator.evidence.memory_curves import validate_memory_curves
from simulator.evidence.scale_out import validate_scale_out


def validate_literature(*, scale_out: bool = True) -> tuple[CurvePoint, ...]:
    """Every published point with what the simulator gives for it, in the order of `CURVES`.

    Args:
        scale_out: whether the table of scaling and balancing is asked too, which takes a few seconds.

    Raises:
        SimulatorError: the published figures or the profiles cannot be read, or one that is needed is missing.
    """
    points = (*validate_curves(), *validate_memory_curves(), *(validate_scale_out() if scale_out else ()))
    # A stable sort: within a curve, start-up stays before memory.
    return tuple(sorted(points, key=lambda point: point.curve))
