"""The published curves: what was fitted is named, the rest is predicted, and shape and ratio come out."""

import json
import math

import pytest

from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError
from simulator.evidence.curves import (
    CURVES,
    FITTED,
    POINT_COLUMNS,
    SUMMARY_COLUMNS,
    curves_as_json,
    growth,
    point_rows,
    summarise_curves,
    summary_rows,
    validate_curves,
)
from simulator.evidence.published import read_published


@pytest.fixture(scope="module")
def points():
    return validate_curves()


def test_every_published_point_is_compared_once(points):
    published = [figure for figure in read_published("curves") if figure.quantity in ("start-up", "create", "boot")]
    compared = [point for point in points if point.curve != 5]
    assert sorted(figure.value for figure in published) == sorted(point.published for point in compared)
    assert len(compared) == len({(point.curve, point.platform, point.condition) for point in compared})
    assert {1, 2, 4, 5} == {point.curve for point in points}


def test_as_many_are_fitted_as_the_form_has_constants_and_no_more(points):
    for (quantity, platform), fitted in FITTED.items():
        curve = {"start-up": 1, "create": 2}[quantity]
        line = [point for point in points if (point.curve, point.platform) == (curve, platform)]
        assert len(fitted) == sum(point.fitted for point in line)
        assert len(fitted) < len(line)
        assert not line[-1].fitted  # the far end of each line is always predicted


def test_what_was_fitted_is_hit(points):
    for point in points:
        if point.fitted:
            assert abs(point.relative_error) < 1e-4


def test_an_error_is_relative_to_what_is_published(points):
    for point in points:
        assert (point.model - point.published) / point.published == point.relative_error


def test_shape_and_ratio_are_those_of_the_publication(points):
    """Issue 3: reproduce shape and ratio within one source."""
    for part in summarise_curves(points):
        assert part.same_order
        if part.points and part.curve != 5:
            assert part.median_absolute_relative_error < 0.15
        if part.curve in (1, 4):
            assert part.published_ratio / 1.3 < part.model_ratio < part.published_ratio * 1.3


def test_a_debian_guest_slows_down_far_more_than_a_container(points):
    ratio = {part.platform: part.model_ratio for part in summarise_curves(points) if part.curve == 1}
    assert ratio["docker"] < ratio["tinyx-xen"] < ratio["minios-xen"] < ratio["debian-xen"]


def test_the_model_is_the_simulator_and_not_the_fit(points, data_copy):
    """A platform that ships is spoilt: what the model gives for its points must follow."""
    path = data_copy / "profiles" / "container-dockerd.toml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("cpu_seconds = 0.173519", "cpu_seconds = 1.173519"), "utf-8"
    )
    spoilt = {(point.curve, point.platform, point.condition): point for point in validate_curves()}
    for point in points:
        other = spoilt[point.curve, point.platform, point.condition]
        assert point.published == other.published
        assert other.model - point.model == pytest.approx(float((point.curve, point.platform) == (1, "docker")))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_fit_goes_through_its_points(count):
    given = [(5, 1.0), (100, 2.0), (400, 9.0)][:count]
    phase = growth(given, "test")
    for running, seconds in given:
        assert seconds == pytest.approx(phase.cpu_seconds_beside(running))
    assert bool(phase.cpu_seconds_per_running_squared) == (count == 3)


def test_a_fit_in_which_work_would_shrink_is_refused():
    with pytest.raises(SimulatorError, match="negative constant"):
        growth([(0, 2.0), (10, 1.0)], "test")


def test_a_person_gets_a_row_for_each(points):
    rows = list(point_rows(points))
    assert len(points) == len(rows)
    assert {len(POINT_COLUMNS)} == {len(row) for row in rows}
    assert sum(point.fitted for point in points) == sum(row[-1] == "fitted" for row in rows)
    assert not any("e+" in text for row in rows for text in row)
    summaries = list(summary_rows(summarise_curves(points)))
    assert {len(SUMMARY_COLUMNS)} == {len(row) for row in summaries}
    assert {CURVES[curve] for curve in (1, 2, 4, 5)} == {row[0] for row in summaries}


def test_all_of_it_can_be_written_as_json(points):
    text = json.dumps(curves_as_json(points), allow_nan=False)
    assert len(points) == len(json.loads(text)["points"])


def test_where_nothing_is_predicted_there_is_no_error(points):
    fitted = [point for point in points if point.fitted and point.curve == 1 and point.platform == "docker"]
    (part,) = summarise_curves(fitted)
    assert part.points == 0
    assert part.worst is None
    assert math.isnan(part.median_absolute_relative_error)
    assert curves_as_json(fitted)["summary"][0]["median_absolute_relative_error"] is None


def test_the_platforms_behind_a_curve_ship():
    for name in ("container-dockerd", "unikernel", "container-gvisor", "vm-kvm"):
        assert "published" == PlatformProfile.from_toml(name).startup.total_seconds.kind
