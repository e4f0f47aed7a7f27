"""A timetable: so many instances from this second on."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from simulator.control.autoscaler import Decision, Fleet, PodMetrics
from simulator.control.bounds import Instances
from simulator.records import NonNegative, Positive, StrictModel


class ScheduleSettings(StrictModel):
    """`[autoscaler] kind = "schedule"`: `times = [[0, 4], [120, 20], [360, 4]]`.

    Attributes:
        times: from which second on, and how many; in order, the first at 0.
        repeat_seconds: after so many seconds the timetable begins again (86400: each day), or None if it does not.
        sync_seconds: how often the clock is looked at. A change comes with the first look at or after its time.
    """

    kind: Literal["schedule"]
    times: Annotated[tuple[tuple[NonNegative, Instances], ...], Field(min_length=1, max_length=10_000)]
    repeat_seconds: Positive | None = None
    sync_seconds: Positive = 15.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        seconds = [time for time, _ in self.times]
        if seconds[0] != 0:
            raise ValueError(f"`times` must begin at second 0, not at {seconds[0]:g}: put [0, …] first")
        for before, after in pairwise(seconds):
            if after <= before:
                raise ValueError(f"`times` must be in order, but {after:g} follows {before:g}")
        if self.repeat_seconds is not None and seconds[-1] >= self.repeat_seconds:
            raise ValueError(
                f"`times` has {seconds[-1]:g}, which never comes where `repeat_seconds` is {self.repeat_seconds:g}"
            )
        return self

    def build(self) -> "Schedule":
        """The policy with these settings."""
        return Schedule(self)


class Schedule:
    """Follows the timetable, whatever the load."""

    wakes_on_arrival = False

    def __init__(self, settings: ScheduleSettings) -> None:
        self._settings = settings
        self._seconds = [time for time, _ in settings.times]

    @property
    def initial_instances(self) -> int:
        """What the timetable says for second 0."""
        return self._settings.times[0][1]

    @property
    def sync_seconds(self) -> float:
        """How often it looks at the clock."""
        return self._settings.sync_seconds

    def decide(self, now: float, pods: Sequence[PodMetrics], fleet: Fleet | None = None) -> Decision:
        """What the timetable says for `now`; an entry holds from its second on, that second included."""
        repeat = self._settings.repeat_seconds
        clock = now if repeat is None else now % repeat
        since, desired = self._settings.times[bisect_right(self._seconds, clock) - 1]
        again = "" if repeat is None else f" of each {repeat:g} s"
        reason = f"the timetable says {desired} from second {since:g}{again} on"
        return Decision(now, len(pods), desired, desired, None, reason)
