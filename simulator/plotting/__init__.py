"""Figures: `plot_x(what, ..., ax=None, language="en") -> Axes`. matplotlib is imported when one is drawn.

Each draws on one axes, in a notebook as in the report, and says in its docstring what its marks mean. The words come
from `words.en.toml` and `words.ko.toml`, so that both languages show the same.
"""

from simulator.plotting.curves import plot_published_curve as plot_published_curve
from simulator.plotting.memory import plot_memory_per_instance as plot_memory_per_instance
from simulator.plotting.memory import plot_memory_total as plot_memory_total
from simulator.plotting.outcomes import plot_differences as plot_differences
from simulator.plotting.outcomes import plot_outcome as plot_outcome
from simulator.plotting.scaling import plot_episode_latency as plot_episode_latency
from simulator.plotting.scaling import plot_episode_violations as plot_episode_violations
from simulator.plotting.scaling import plot_instances as plot_instances
from simulator.plotting.scaling import plot_offered_load as plot_offered_load
from simulator.plotting.startup import plot_startup_ecdf as plot_startup_ecdf
from simulator.plotting.startup import plot_startup_phases as plot_startup_phases
from simulator.plotting.validation import plot_contention as plot_contention
from simulator.plotting.validation import plot_predicted_against_measured as plot_predicted_against_measured
from simulator.plotting.validation import plot_relative_error as plot_relative_error
