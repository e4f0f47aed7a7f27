"""A discrete-event model of containers and virtual machines: how each starts, what it needs, how it follows load.

The public face. Names are loaded when they are first used, so that importing the package costs nothing:

>>> import simulator
>>> scenario = simulator.Scenario.from_toml("compare")
>>> result = simulator.run(scenario, seed=1)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.datacenter.platforms import PlatformProfile as PlatformProfile
    from simulator.errors import SimulatorError as SimulatorError
    from simulator.experiments import Sweep as Sweep
    from simulator.experiments import compare as compare
    from simulator.experiments import run as run
    from simulator.experiments import sweep as sweep
    from simulator.results import Comparison as Comparison
    from simulator.results import Result as Result
    from simulator.scenario import Scenario as Scenario

_HOME = {
    "Comparison": "simulator.results",
    "PlatformProfile": "simulator.datacenter.platforms",
    "Result": "simulator.results",
    "Scenario": "simulator.scenario",
    "SimulatorError": "simulator.errors",
    "Sweep": "simulator.experiments",
    "compare": "simulator.experiments",
    "run": "simulator.experiments",
    "sweep": "simulator.experiments",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it (PEP 562)."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
