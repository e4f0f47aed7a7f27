"""Laws that hold for any system in its long run, whatever it serves and in which order."""

from simulator.errors import SimulatorError
from simulator.evidence.theory.checks import check_positive


def mean_number(rate: float, mean_seconds: float) -> float:
    """How many are inside on average, where `rate` enter (and leave) per second and each stays `mean_seconds`.

    Raises:
        SimulatorError: a rate that is not positive, or a negative time.

    Source: Little, A proof for the queuing formula L = λW, Operations Research 9 (1961).
    """
    check_positive("rate", rate)
    if mean_seconds < 0:
        raise SimulatorError(f"mean_seconds {mean_seconds}: nothing stays for less than no time")
    return rate * mean_seconds


def interactive_response_time(users: int, throughput: float, mean_think: float) -> float:
    """Mean response time in a closed loop: R = N / X - Z, which is Little's law for thinking and waiting together.

    Args:
        users: N.
        throughput: X, answers per second.
        mean_think: Z, seconds between an answer and the same user's next request.

    Returns:
        Seconds. Negative where no system can have this throughput.

    Raises:
        SimulatorError: a throughput that is not positive.

    Source: Lazowska, Zahorjan, Graham and Sevcik, Quantitative System Performance (1984), chapter 3.
    """
    check_positive("throughput", throughput)
    return users / throughput - mean_think
