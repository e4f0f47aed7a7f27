"""Closed forms of queueing theory that the simulation is verified against.

Rates are per second, times in seconds, and a *load* is arrival rate times mean demand, in erlangs (busy workers).
"""

from simulator.evidence.theory.closed_loops import ClosedLoop, closed_loop, mean_value_analysis
from simulator.evidence.theory.laws import interactive_response_time, mean_number
from simulator.evidence.theory.moments import bounded_pareto_coefficient_of_variation, bounded_pareto_moment
from simulator.evidence.theory.queues import (
    FiniteQueue,
    erlang_b,
    erlang_c,
    mdc_mean_wait,
    mg1_mean_wait,
    mmc_mean_wait,
    mmc_wait_quantile,
    mmck,
)
from simulator.evidence.theory.sharing import (
    fair_shares,
    ps_conditional_sojourn,
    ps_mean_sojourn,
    shared_cores_mean_sojourn,
)
from simulator.evidence.theory.supermarket import supermarket_mean_sojourn, supermarket_tail

__all__ = [
    "ClosedLoop",
    "FiniteQueue",
    "bounded_pareto_coefficient_of_variation",
    "bounded_pareto_moment",
    "closed_loop",
    "erlang_b",
    "erlang_c",
    "fair_shares",
    "interactive_response_time",
    "mdc_mean_wait",
    "mean_number",
    "mean_value_analysis",
    "mg1_mean_wait",
    "mmc_mean_wait",
    "mmc_wait_quantile",
    "mmck",
    "ps_conditional_sojourn",
    "ps_mean_sojourn",
    "shared_cores_mean_sojourn",
    "supermarket_mean_sojourn",
    "supermarket_tail",
]
