"""M/M/10 as users of Ciw and of SimPy write it, at a load of 0.8 and a mean service of 1.

Each keeps as little as its library lets it: Ciw its own record of each visit, SimPy a sum of waits and nothing else.
"""

from collections.abc import Generator, Iterator
from typing import Any

from classroom.bench.cases import MM10_LOAD, MM10_SERVICE, MM10_WORKERS

RATE = MM10_LOAD * MM10_WORKERS / MM10_SERVICE
BLOCK = 65536


def ciw_queue(requests: int, seed: int) -> Any:
    """Run Ciw until so many customers are served; gives its simulation.

    Source: https://ciw.readthedocs.io, tutorial and `simulate_until_max_customers`.
    """
    import ciw

    ciw.seed(seed)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate=RATE)],
        service_distributions=[ciw.dists.Exponential(rate=1 / MM10_SERVICE)],
        number_of_servers=[MM10_WORKERS],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(requests, method="Finish")
    return simulation


def ciw_mean_wait(simulation: Any) -> float:
    """Mean wait of all customers whom `ciw_queue` served."""
    waits = [record.waiting_time for record in simulation.get_all_records()]
    return float(sum(waits) / len(waits))


def simpy_queue(requests: int, seed: int) -> float:
    """Run SimPy with one process per customer; gives the mean wait.

    Random numbers are drawn in blocks and events are SimPy's own. What is left is a process, a request for one of the
    ten, its release and two time-outs for each customer.
    """
    import numpy as np
    from simpy import Environment, Resource

    random = np.random.default_rng(seed)

    def exponential(mean: float) -> Iterator[float]:
        while True:
            yield from random.exponential(mean, BLOCK).tolist()

    env = Environment()
    workers = Resource(env, capacity=MM10_WORKERS)
    services = exponential(MM10_SERVICE)
    waited = 0.0

    def customer() -> Generator[Any, Any, None]:
        nonlocal waited
        arrived = env.now
        with workers.request() as worker:
            yield worker
            waited += env.now - arrived
            yield env.timeout(next(services))

    def customers() -> Generator[Any, Any, None]:
        gaps = exponential(1.0 / RATE)
        for _ in range(requests):
            yield env.timeout(next(gaps))
            env.process(customer())

    env.process(customers())
    env.run()
    return waited / requests
