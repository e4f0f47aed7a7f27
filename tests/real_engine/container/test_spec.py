"""What is asked for is checked before anything exists."""

from pathlib import Path

import pytest

from real_engine.container.spec import DEFAULT_CAPABILITIES, ContainerSpec, Device, ExecSpec, Limits, Mount, Ulimit
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


@pytest.mark.parametrize("dropped", ["SYS_ADMIN", "cap_sys_admin"])
def test_all_capabilities_but_one(dropped):
    spec = ContainerSpec(LAYERS, ("true",), add_capabilities=("ALL",), drop_capabilities=(dropped,))
    held = capabilities.names(spec.capability_mask)
    assert (len(capabilities.NAMES) - 1, False) == (len(held), "CAP_SYS_ADMIN" in held)


def test_what_is_added_by_its_name_is_held_though_it_is_dropped_too():
    spec = ContainerSpec(LAYERS, ("true",), add_capabilities=("NET_RAW",), drop_capabilities=("NET_RAW",))
    assert 0xA80425FB == spec.capability_mask


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
        ({"upper": Path("/u")}, "needs a work directory"),
        ({"pid": "mine"}, "unknown pid namespace `mine`"),
        ({"oom_score_adj": 1001}, r"range for oom score adj is \[-1000, 1000\]"),
        ({"device_cgroup_rules": ("c 1:3",)}, "invalid device cgroup rule format: 'c 1:3'"),
        ({"sysctls": {"kernel.panic": "1"}}, 'sysctl "kernel.panic" is not in a separate kernel namespace'),
        ({"sysctls": {"net.x": "1"}, "network": "host"}, 'sysctl "net.x" not allowed in host network namespace'),
        ({"sysctls": {"kernel.sem": "1"}, "ipc": "host"}, "not allowed in the hosts ipc namespace"),
        ({"sysctls": {"net.../../../kernel/panic": "1"}}, "not in a separate kernel namespace"),
        ({"masked_paths": ("proc",)}, "absolute path"),
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
        ({"memory_bytes": 64 << 20, "memory_swap_bytes": 32 << 20}, "larger than memory limit"),
        ({"memory_swappiness": 101}, "valid memory swappiness range is 0-100"),
        ({"blkio_weight": 9}, "from 10 to 1000"),
        ({"cpus": 1.0, "cpu_quota_microseconds": 1000}, "Conflicting options"),
    ],
)
def test_limits_that_leave_nothing_are_refused(limits, message):
    with pytest.raises(EngineError, match=message):
        Limits(**limits)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mount("volume", "/x"), "mount type unknown: `volume`"),
        (lambda: Mount("bind", "x", "/y"), "absolute path"),
        (lambda: Mount("bind", "/x", "y"), "absolute path"),
        (lambda: Mount("bind", "/", "/y"), "root of the container"),
        (lambda: Mount("tmpfs", "/x", propagation="wild"), "invalid propagation config: wild"),
        (lambda: Device("/dev/null", permissions="rx"), "invalid device mode: rx"),
        (lambda: Ulimit("files", 1, 1), "invalid ulimit type: files"),
        (lambda: Ulimit("nofile", 2, 1), "must be less than or equal to hard limit: 2 > 1"),
        (lambda: Ulimit("nofile", -1, 1), "must be less than or equal to hard limit"),
        (lambda: ExecSpec(()), "needs a command"),
        (lambda: ExecSpec(("x",), workdir="x"), "absolute path"),
    ],
)
def test_parts_that_cannot_be_meant_are_refused(make, message):
    with pytest.raises(EngineError, match=message):
        make()


def test_privileged_is_everything_whatever_is_dropped():
    spec = ContainerSpec(LAYERS, ("true",), privileged=True, drop_capabilities=("ALL",))
    assert (1 << len(capabilities.NAMES)) - 1 == spec.capability_mask
