"""Limits hold: memory, processes and CPU, on the cgroup version that this machine has."""

import os
import time
from pathlib import Path

import pytest

from real_engine.container.engine import Engine
from real_engine.container.spec import ContainerSpec, Limits
from real_engine.container.usage import Usage, oom_kills, read_usage
from real_engine.errors import EngineError, NotImplementedHere
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


@pytest.fixture
def sleeper(engine, image, leftovers):
    spec = ContainerSpec(image.layers, ("sleep", "600"), limits=Limits(memory_bytes=64 << 20, pids=20))
    with engine.start(spec) as container:
        yield container


def test_limits_of_a_running_container_change_both_ways(engine, sleeper):
    groups = engine.group_paths(sleeper.id)
    for mebibytes, pids in ((128, -1), (32, 7)):
        engine.update_limits(
            sleeper.id, Limits(memory_bytes=mebibytes << 20, memory_swap_bytes=mebibytes << 21, pids=pids)
        )
        usage = read_usage(groups)
        assert (mebibytes << 20, None if pids == -1 else pids) == (usage.memory_limit_bytes, usage.pids_limit)
    engine.update_limits(sleeper.id, Limits(cpu_shares=512))
    assert mebibytes << 20 == read_usage(groups).memory_limit_bytes  # what isn't named stays


@pytest.mark.skipif(cgroups.mode() == "v2", reason="cgroup v2 takes it, and kills what doesn't fit")
def test_less_memory_than_it_uses_is_refused(engine, image, leftovers):
    script = "dd if=/dev/zero of=/dev/shm/full bs=1M count=40 2> /dev/null; echo full; exec sleep 60"
    receive, send = os.pipe()
    with engine.start(ContainerSpec(image.layers, ("sh", "-c", script)), stdout=send) as container:
        assert b"full\n" == os.read(receive, 10)
        without_swap = Limits(memory_bytes=8 << 20, memory_swap_bytes=8 << 20)
        with pytest.raises(EngineError, match=r"failed to write to .*: device or resource busy"):
            engine.update_limits(container.id, without_swap)
    os.close(receive)
    os.close(send)


def test_the_cpus_of_a_running_container(engine, sleeper):
    assert os.sched_getaffinity(0) == os.sched_getaffinity(sleeper.pid)
    engine.update_limits(sleeper.id, Limits(cpuset_cpus="0"))
    assert {0} == os.sched_getaffinity(sleeper.pid)
    assert "cpuset" in engine.group_paths(sleeper.id)


def test_the_cpus_of_a_new_container(run, leftovers):
    assert (0, "1\n") == run("nproc", limits=Limits(cpuset_cpus="0", cpuset_mems="0"))


def test_pause_and_go_on(engine, image, leftovers):
    receive, send = os.pipe()
    os.set_blocking(receive, False)
    counter = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.01; done"
    with engine.start(ContainerSpec(image.layers, ("sh", "-c", counter)), stdout=send) as container:
        for _ in range(2):  # the second time it is in its group already
            engine.freeze(container.id)
            _drain(receive)
            time.sleep(0.1)
            assert b"" == _drain(receive)
            engine.thaw(container.id)
            time.sleep(0.2)
            assert _drain(receive)
    os.close(receive)
    os.close(send)


def test_one_that_is_paused_can_be_removed(engine, sleeper):
    engine.freeze(sleeper.id)
    begin = time.monotonic()
    sleeper.remove()
    assert time.monotonic() - begin < 5
    assert 137 == sleeper.status


def test_to_let_go_on_what_was_never_paused_does_no_harm(engine, sleeper):
    engine.thaw(sleeper.id)


def test_what_cannot_be_paused_is_said(data_root, sleeper):
    with pytest.raises(NotImplementedHere, match="cannot pause a container here"):
        Engine(data_root, ()).freeze(sleeper.id)


def test_what_it_uses(engine, image, leftovers):
    work = "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2> /dev/null; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
    script = f"{work}; echo; cat"
    read, write = os.pipe(), os.pipe()
    limits = Limits(memory_bytes=100 << 20, pids=30, cpus=0.5)
    with engine.start(ContainerSpec(image.layers, ("sh", "-c", script), limits=limits), read[0], write[1]) as container:
        assert b"\n" == os.read(write[0], 10)
        usage = read_usage(engine.group_paths(container.id))
        assert 20 << 20 < usage.memory_bytes < 60 << 20
        assert (100 << 20, 30, 0) == (usage.memory_limit_bytes, usage.pids_limit, usage.oom_kills)
        assert usage.memory_peak_bytes is None or usage.memory_peak_bytes >= usage.memory_bytes
        assert usage.pids_current in (1, 2)  # the shell, and the cat that it is about to start
        assert 0 < usage.cpu_user_ns + usage.cpu_system_ns
        assert 10_000_000 < usage.cpu_total_ns
        assert usage.throttling_periods > 0
        assert usage.memory_stat
    assert Usage() == read_usage({"memory": "/no/such/group"})
    for descriptor in (*read, *write):
        os.close(descriptor)


def test_that_it_was_killed_for_memory_is_counted(engine, image, leftovers):
    spec = ContainerSpec(
        image.layers,
        ("sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 60"),
        limits=Limits(memory_bytes=16 << 20),
    )
    with engine.start(spec) as container:
        deadline = time.monotonic() + 15
        while oom_kills(engine.group_paths(container.id)) == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (
            1 == oom_kills(engine.group_paths(container.id)) == read_usage(engine.group_paths(container.id)).oom_kills
        )


def test_usage_on_v2(tmp_path):
    files = {
        "memory.current": "4096\n",
        "memory.max": "max\n",
        "memory.stat": "anon 1\nfile 2\n",
        "memory.events": "low 0\noom 2\noom_kill 1\n",
        "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 5\nnr_throttled 2\nthrottled_usec 7\n",
        "pids.current": "3\n",
        "pids.max": "9\n",
        "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    usage = read_usage({"": str(tmp_path), "memory": str(tmp_path)})
    assert (4096, None, {"anon": 1, "file": 2}, 1) == (
        usage.memory_bytes,
        usage.memory_limit_bytes,
        usage.memory_stat,
        usage.oom_kills,
    )
    assert (30_000, 20_000, 10_000, 5, 2, 7_000) == (
        usage.cpu_total_ns,
        usage.cpu_user_ns,
        usage.cpu_system_ns,
        usage.throttling_periods,
        usage.throttled_periods,
        usage.throttled_ns,
    )
    assert (3, 9) == (usage.pids_current, usage.pids_limit)
    assert [
        {"major": 8, "minor": 0, "op": "read", "value": 1},
        {"major": 8, "minor": 0, "op": "write", "value": 2},
    ] == [*usage.io_bytes]
    assert [3, 4] == [entry["value"] for entry in usage.io_operations]
    assert 1 == oom_kills({"": str(tmp_path)})


def test_the_group_of_an_engine_goes_with_it(tmp_path, image):
    engine = Engine(tmp_path, group=f"onggi-ends-{os.getpid()}")
    parents = [hierarchy.parent for hierarchy in engine.host.hierarchies]
    with engine.start(ContainerSpec(image.layers, ("sleep", "60"))) as container:
        engine.remove_group()
        assert all(Path(path).is_dir() for path in engine.group_paths(container.id).values())
    engine.remove_group()
    assert [] == [parent for parent in parents if parent.exists()]


def test_what_is_swept_is_all_in_the_group(tmp_path, image):
    engine = Engine(tmp_path, group=f"onggi-swept-{os.getpid()}")
    container = engine.create(ContainerSpec(image.layers, ("sleep", "600")), "one")
    container.begin((0, 1, 2))
    container.complete()
    engine.freeze("one")
    assert ["one"] == engine.sweep_groups()
    assert 137 == container.wait(timeout_seconds=10)
    container.remove()
    engine.remove_group()
    assert not engine.host.hierarchies[0].parent.exists()


def test_groups_that_a_container_made_are_removed_with_it(engine, image, leftovers):
    make = "mkdir -p /sys/fs/cgroup/$name/a/b && echo 1 > /sys/fs/cgroup/$name/a/cgroup.procs"
    script = f"for name in pids memory; do {make}; done; sleep 60"
    spec = ContainerSpec(image.layers, ("sh", "-c", script), privileged=True, no_new_privileges=False)
    with engine.start(spec) as container:
        group = Path(engine.group_paths(container.id)["pids"])
        deadline = time.monotonic() + 10
        while not (group / "a/b").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (group / "a/b").is_dir()
    assert not group.exists()


def _drain(descriptor: int) -> bytes:
    found = b""
    try:
        while part := os.read(descriptor, 65536):
            found += part
    except BlockingIOError:
        pass
    return found
