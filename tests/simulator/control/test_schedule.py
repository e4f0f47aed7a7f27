"""The timetable and its edges."""

import pytest
from pydantic import ValidationError

from simulator.control.autoscaler import PodMetrics
from simulator.control.schedule import Schedule, ScheduleSettings


def pod(percent: int = 0, *, since: float = 0.0) -> PodMetrics:
    return PodMetrics(since, since, 10 * percent, 1000)


def schedule(**settings: object) -> Schedule:
    tree = {"kind": "schedule", "times": [[0, 4], [120, 20], [360, 6]], **settings}
    return ScheduleSettings.model_validate(tree).build()


@pytest.mark.parametrize(("seconds", "desired"), [(0, 4), (119.9, 4), (120, 20), (359.9, 20), (360, 6), (1e6, 6)])
def test_an_entry_holds_from_its_second_until_the_next(seconds, desired):
    assert desired == schedule().decide(seconds, [pod()]).desired


@pytest.mark.parametrize(("seconds", "desired"), [(599, 6), (600, 4), (720, 20), (86520, 20)])
def test_it_can_begin_again(seconds, desired):
    assert desired == schedule(repeat_seconds=600).decide(seconds, [pod()]).desired


def test_it_begins_with_what_it_says_for_the_beginning():
    assert 4 == schedule().initial_instances


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"times": []}, "times"),
        ({"times": [[5, 1]]}, "begin at second 0"),
        ({"times": [[0, 1], [9, 2], [9, 3]]}, "in order"),
        ({"times": [[0, 0]]}, "times"),
        ({"repeat_seconds": 360}, "never comes"),
    ],
)
def test_an_impossible_timetable_is_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        schedule(**wrong)
