"""What is asked for is checked before anything exists."""

from pathlib import Path

import pytest

from real_engine.container.spec import DEFAULT_CAPABILITIES, ContainerSpec, Limits
from real_engine.errors import EngineError
from real_engine.linux import capabilities

LAYERS = (Path("/"),)


def test_the_default_capabilities_are_dockers():
    assert 0xA80425FB == ContainerSpec(LAYERS, ("true",)).capability_mask == capabilities.mask(DEFAULT_CAPABILITIES)


def test_capabilities_are_dropped_first_and_added_then():
    spec = ContainerSpec(LAYERS, ("true",), drop_capabilities=("all",), add_capabilities=("CAP_KILL", "chown"))
    assert ("CAP_CHOWN", "CAP_KILL") == capabilities.names(spec.capability_mask)
    assert capabilities.names(ContainerSpec(LAYERS, ("x",), add_capabilities=("ALL",)).capability_mask)[-1].startswith(
        "CAP_"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ()}, "at least one layer"),
        ({"argv": ()}, "needs a command"),
        ({"argv": ("",)}, "needs a command"),
        ({"argv": ("a\0b",)}, "NUL"),
        ({"network": "bridge"}, "`none` or `host`"),
        ({"hostname": "-x"}, "no host name"),
        ({"hostname": "x" * 65}, "no host name"),
        ({"workdir": "tmp"}, "absolute path"),
        ({"workdir": "/a/../.."}, "absolute path"),
        ({"tmpfs": ("run",)}, "absolute path"),
        ({"environment": {"A=B": "c"}}, "no name of an environment variable"),
        ({"add_capabilities": ("SYS_ADMINN",)}, "unknown capability `SYS_ADMINN`"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(EngineError, match=message):
        ContainerSpec(**{"layers": LAYERS, "argv": ("true",), **options})


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"memory_bytes": -1}, "too low"),
        ({"memory_bytes": 4096}, "6m or more"),
        ({"cpus": 0.0}, "0.01 or more"),
        ({"cpus": float("nan")}, "no number"),
        ({"pids": 0}, "1 or more"),
    ],
)
def test_limits_that_leave_nothing_are_refused(limits, message):
    with pytest.raises(EngineError, match=message):
        Limits(**limits)
