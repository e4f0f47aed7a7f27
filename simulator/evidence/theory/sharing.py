"""Servers that are shared: all requests in them are served at once, each at a part of the speed."""

from collections.abc import Sequence

from simulator.errors import SimulatorError
from simulator.evidence.theory.checks import check_stable
from simulator.evidence.theory.queues import mmc_mean_wait


def ps_mean_sojourn(arrival_rate: float, mean_demand: float) -> float:
    """Mean time in M/G/1 under processor sharing, the same for every distribution of the demand.

    Args:
        arrival_rate: requests per second.
        mean_demand: seconds of the whole server.

    Raises:
        SimulatorError: a load that the server cannot carry.

    Source: Kleinrock, Queueing Systems, volume 2 (1976), chapter 4.
    """
    return ps_conditional_sojourn(arrival_rate, mean_demand, mean_demand)


def ps_conditional_sojourn(arrival_rate: float, mean_demand: float, demand: float) -> float:
    """Mean time in M/G/1 under processor sharing of the requests that need `demand`: their demand / (1 - load).

    So each is slowed by the same factor, which is why sharing is called fair.

    Args:
        arrival_rate: requests per second.
        mean_demand: seconds of the whole server, over all requests.
        demand: seconds of the whole server that these requests need.

    Raises:
        SimulatorError: a load that the server cannot carry, or a negative demand.

    Source: Kleinrock, Queueing Systems, volume 2 (1976), chapter 4.
    """
    load = arrival_rate * mean_demand
    check_stable(1, load)
    if not demand >= 0:
        raise SimulatorError(f"demand {demand}: must be at least 0")
    return demand / (1 - load)


def shared_cores_mean_sojourn(cores: int, arrival_rate: float, mean_demand: float) -> float:
    """Mean time where all requests share `cores` and none can use more than one, at every distribution of the demand.

    With n requests each is served at the speed min(1, cores / n). The number inside does not depend on the
    distribution, so it is that of M/M/c, and by Little's law so is the mean time.

    Args:
        cores: at least 1.
        arrival_rate: requests per second.
        mean_demand: seconds of one core.

    Raises:
        SimulatorError: no cores, or a load that they cannot carry.

    Source: Cohen, The multiple phase service network with generalized processor sharing, Acta Informatica 12 (1979).
    """
    return mmc_mean_wait(cores, arrival_rate, mean_demand) + mean_demand


def fair_shares(capacity: float, limits: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """Weighted max-min fair shares of one resource: cores under weights and quotas, or one link.

    Each gets in proportion to its weight, but never more than its limit; what one leaves goes to the others.

    Args:
        capacity: of the resource, at least 0.
        limits: the most that each can use (its demand, or its quota), at least 0; infinity where there is none.
        weights: above 0; default: all equal.

    Returns:
        The share of each, in the order of `limits`.

    Raises:
        SimulatorError: a negative capacity or limit, a weight that is not positive, or another number of weights.

    Source: Bertsekas and Gallager, Data Networks (2nd ed., 1992), section 6.5.2.
    """
    parts = [1.0] * len(limits) if weights is None else list(weights)
    if len(parts) != len(limits):
        raise SimulatorError(f"fair shares: {len(limits)} limits but {len(parts)} weights; give one weight each")
    if capacity < 0 or any(not limit >= 0 for limit in limits) or any(not part > 0 for part in parts):
        raise SimulatorError("fair shares: capacity and limits must be at least 0, and weights above 0")
    shares = [0.0] * len(limits)
    left, weight_left = capacity, sum(parts)
    # Those who soon have enough come first: whoever is reached after that divides the rest with all that remain.
    order = sorted(range(len(limits)), key=lambda index: limits[index] / parts[index])
    for position, index in enumerate(order):
        fair = left * parts[index] / weight_left
        shares[index] = min(limits[index], fair)
        left = max(left - shares[index], 0.0)
        # Summed anew, since what a subtraction leaves of a large weight may be less than the small ones that are left.
        weight_left = sum(parts[other] for other in order[position + 1 :])
    return shares
