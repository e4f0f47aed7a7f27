"""Options of the log, their values and Docker's words about wrong ones."""

import pytest

from real_engine.errors import EngineError, InvalidParameter
from real_engine.supervisor.log_options import LogOptions, Rotation, attributes, validate


@pytest.mark.parametrize(
    ("driver", "options", "rotation"),
    [
        ("json-file", {}, Rotation(None, 1, False)),
        ("json-file", {"max-size": "10m", "max-file": "3"}, Rotation(10_000_000, 3, False)),
        ("json-file", {"max-size": "1k", "max-file": "2", "compress": "true"}, Rotation(1000, 2, True)),
        ("json-file", {"max-size": "1.5k"}, Rotation(1500, 1, False)),
        ("json-file", {"max-size": "512"}, Rotation(512, 1, False)),
        ("json-file", {"max-size": "2KiB"}, Rotation(2000, 1, False)),
        ("local", {}, Rotation(20_000_000, 5, True)),
        ("local", {"max-file": "1", "compress": "false"}, Rotation(20_000_000, 1, False)),
    ],
)
def test_rotation(driver, options, rotation):
    assert rotation == LogOptions("/log", driver, options).rotation


# The messages were recorded from dockerd 20.10.24.
@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        ("json-file", {"max-size": "0"}, "max-size must be a positive number"),
        ("json-file", {"max-size": "-1"}, "invalid size: '-1'"),
        ("json-file", {"max-size": "abc"}, "invalid size: 'abc'"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"max-file": "x"}, 'strconv.Atoi: parsing "x": invalid syntax'),
        (
            "json-file",
            {"compress": "true"},
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        ("json-file", {"compress": "yes"}, 'strconv.ParseBool: parsing "yes": invalid syntax'),
        ("local", {"max-file": "0"}, "compression cannot be enabled when max file count is 1"),
    ],
)
def test_values_that_cannot_be_meant(driver, options, message):
    with pytest.raises(EngineError) as raised:
        _ = LogOptions("/log", driver, options).rotation
    assert f"failed to initialize logging driver: {message}" == str(raised.value)


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        ("json-file", {"foo": "1"}, "unknown log opt 'foo' for json-file log driver"),
        ("local", {"labels": "a"}, "unknown log opt 'labels' for log driver local"),
        ("none", {"max-size": "1"}, "invalid logging opts for driver none"),
        ("nosuch", {}, "logger: no log driver named 'nosuch' is registered"),
        ("json-file", {"mode": "foo"}, "logger: logging mode not supported: foo"),
        ("local", {"mode": "foo"}, "logger: logging mode not supported: foo"),
        (
            "json-file",
            {"max-buffer-size": "4m"},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            "local",
            {"mode": "blocking", "max-buffer-size": ""},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            "json-file",
            {"mode": "non-blocking", "max-buffer-size": "-1"},
            "error parsing option max-buffer-size: invalid size: '-1'",
        ),
    ],
)
def test_names_that_do_not_exist(driver, options, message):
    with pytest.raises(InvalidParameter) as raised:
        validate(driver, options)
    assert message == str(raised.value)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, None),
        ({"mode": ""}, None),
        ({"mode": "blocking"}, None),
        ({"mode": "non-blocking"}, 1_000_000),
        ({"mode": "non-blocking", "max-buffer-size": "4m"}, 4 << 20),
        ({"mode": "non-blocking", "max-buffer-size": "0"}, 0),
    ],
)
@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_the_mode_is_of_every_driver(driver, options, size):
    validate(driver, options)
    assert size == LogOptions("/log", driver, options).buffer_bytes


def test_attributes():
    options = {"labels": "a,missing", "labels-regex": "^x", "env": "FOO", "tag": "{{.Name}}/{{.ID}} {{ .ImageName }}"}
    found = attributes(
        options,
        labels={"a": "1", "xy": "2", "b": "3"},
        environment={"FOO": "bar", "PATH": "/bin"},
        facts={"ID": "0123456789abcdef", "Name": "/web", "ImageName": "bb"},
    )
    assert {"a": "1", "xy": "2", "FOO": "bar", "tag": "web/0123456789ab bb"} == found


@pytest.mark.parametrize("options", [{"tag": "{{.Nothing}}"}, {"env-regex": "("}])
def test_attributes_that_cannot_be_made(options):
    with pytest.raises(EngineError, match="failed to initialize logging driver"):
        attributes(options, labels={}, environment={}, facts={})
