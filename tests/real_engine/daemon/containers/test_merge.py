"""A container's configuration from the request's and the image's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.daemon.containers import requests
from real_engine.daemon.containers.merge import command, environment, merge
from real_engine.errors import InvalidParameter

_VARIABLES = st.dictionaries(st.text("ABC", min_size=1, max_size=2), st.text("xyz", max_size=3), max_size=5)


def _merged(asked, image):
    config = requests.config(asked)
    merge(config, image)
    return config


def test_an_images_command_counts_where_none_was_asked_for() -> None:
    image = {"Entrypoint": ["entry"], "Cmd": ["argument"]}
    assert ["entry", "argument"] == command(_merged({}, image))
    assert ["entry", "mine"] == command(_merged({"Cmd": ["mine"]}, image))
    assert ["own"] == command(_merged({"Entrypoint": ["own"]}, image))


def test_an_entry_point_can_be_taken_away() -> None:
    assert ["mine"] == command(_merged({"Entrypoint": [""], "Cmd": ["mine"]}, {"Entrypoint": ["entry"]}))


def test_without_any_command_there_is_nothing_to_run() -> None:
    with pytest.raises(InvalidParameter, match="No command specified"):
        command(_merged({}, {}))


@given(_VARIABLES, _VARIABLES)
def test_variables_are_united_and_the_requests_win(asked: dict[str, str], image: dict[str, str]) -> None:
    config = _merged(
        {"Env": [f"{name}={value}" for name, value in asked.items()]},
        {"Env": [f"{name}={value}" for name, value in image.items()]},
    )
    assert {**image, **asked} == environment(config)


def test_labels_ports_and_volumes_are_united() -> None:
    config = _merged(
        {"Labels": {"a": "1"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/x": {}}},
        {"Labels": {"a": "0", "b": "2"}, "ExposedPorts": {"81/tcp": {}}, "Volumes": {"/y": {}}},
    )
    assert {"a": "1", "b": "2"} == config["Labels"]
    assert {"80/tcp", "81/tcp"} == set(config["ExposedPorts"])
    assert {"/x", "/y"} == set(config["Volumes"])


def test_a_health_check_is_completed_by_the_images() -> None:
    image = {"Healthcheck": {"Test": ["CMD", "check"], "Retries": 5}}
    assert image["Healthcheck"] == _merged({}, image)["Healthcheck"]
    assert {"Test": ["NONE"], "Retries": 5} == _merged({"Healthcheck": {"Test": ["NONE"]}}, image)["Healthcheck"]
