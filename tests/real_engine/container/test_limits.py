"""Limits hold: memory, processes and CPU, on the cgroup version that this machine has."""

import time

import pytest

from real_engine.container.spec import ContainerSpec, Limits
from real_engine.linux import cgroups

pytestmark = pytest.mark.root


def test_too_much_memory_kills(run, leftovers):
    script = "head -c 64m /dev/zero | tail -c 64m | wc -c"  # tail keeps all that it is asked for
    assert (0, "67108864\n") == run(script, limits=Limits(memory_bytes=256 << 20))
    status, output = run(
        f"{script}; dd if=/dev/zero of=/dev/shm/full bs=1M count=60", limits=Limits(memory_bytes=24 << 20)
    )
    assert status != 0
    assert "67108864" not in output


def test_a_program_that_alone_takes_too_much_gets_sigkill(run, leftovers):
    status, _ = run(("dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"), limits=Limits(memory_bytes=16 << 20))
    assert 128 + 9 == status


def test_no_more_processes_than_allowed(run, leftovers):
    script = "i=0; while [ $i -lt 9 ]; do sleep 5 & i=$((i+1)); done; echo all"
    status, output = run(script, limits=Limits(pids=5))
    assert status != 0
    assert "Resource temporarily unavailable" in output
    assert "all" not in output


def test_cpu_is_throttled(engine, image, leftovers):
    """Half a CPU for a program that wants a whole one: it gets less than 0.75 of the time that passes."""
    spec = ContainerSpec(image.layers, ("sh", "-c", "while true; do :; done"), limits=Limits(cpus=0.3))
    with engine.start(spec) as container:
        begin, used = time.monotonic(), _cpu_seconds(container.pid)
        time.sleep(0.8)
        share = (_cpu_seconds(container.pid) - used) / (time.monotonic() - begin)
    assert share < 0.45
    assert share > 0.02


def test_limits_can_be_read_inside(run, leftovers):
    limits = Limits(memory_bytes=48 << 20, cpus=1.5, pids=33)
    if cgroups.mode() == "v2":
        files = "memory.max cpu.max pids.max"
        expected = [str(48 << 20), "150000", "100000", "33"]
    else:
        files = "memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max"
        expected = [str(48 << 20), "150000", "33"]
    _, output = run(f"cd /sys/fs/cgroup; cat {files}", limits=limits)
    assert expected == output.split()


def _cpu_seconds(pid: int) -> float:
    return time.clock_gettime(~pid << 3 | 2)
