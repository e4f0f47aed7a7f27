"""Every autoscaler that a scenario can ask for. Adding one: its module beside this one, and its settings here."""

from typing import Annotated

from pydantic import Field

from simulator.control.fixed import FixedSettings
from simulator.control.hpa import HpaSettings
from simulator.control.kpa import KpaSettings
from simulator.control.predictive import PredictiveSettings
from simulator.control.schedule import ScheduleSettings
from simulator.control.step import StepSettings
from simulator.control.target_tracking import TargetTrackingSettings

Autoscalers = Annotated[
    FixedSettings
    | HpaSettings
    | TargetTrackingSettings
    | StepSettings
    | ScheduleSettings
    | KpaSettings
    | PredictiveSettings,
    Field(discriminator="kind"),
]
"""`[autoscaler]`: any policy; `kind` says which."""
