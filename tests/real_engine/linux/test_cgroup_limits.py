"""Limits become the right files of v1 and v2, in the right order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.linux import cgroup_limits
from real_engine.linux.cgroup_limits import UNLIMITED, Wanted, limit_settings, shares_to_weight
from real_engine.linux.cgroups import Hierarchy

MEBIBYTE = 1 << 20
V2_CONTROLLERS = frozenset({"memory", "cpu", "cpuset", "io", "pids"})


@pytest.fixture
def v2(tmp_path):
    (tmp_path / "onggi").mkdir()
    for name in ("memory.swap.max", "io.weight", "io.bfq.weight"):
        (tmp_path / "onggi" / name).write_text("")
    return Hierarchy(2, V2_CONTROLLERS, tmp_path, tmp_path / "onggi")


@pytest.fixture
def v1(tmp_path):
    def hierarchy(*controllers, files=()):
        mount_point = tmp_path / ",".join(controllers)
        (mount_point / "onggi").mkdir(parents=True)
        for name in files:
            (mount_point / "onggi" / name).write_text("")
        return Hierarchy(1, frozenset(controllers), mount_point, mount_point / "onggi")

    return hierarchy


def test_memory_and_swap_on_v2_are_apart(v2):
    wanted = Wanted(memory_bytes=64 * MEBIBYTE, memory_swap_bytes=96 * MEBIBYTE, memory_reservation_bytes=MEBIBYTE)
    assert [
        ("memory.max", str(64 * MEBIBYTE)),
        ("memory.swap.max", str(32 * MEBIBYTE)),
        ("memory.low", str(MEBIBYTE)),
    ] == _short(v2, wanted)
    assert ("memory.swap.max", "max") in _short(v2, Wanted(memory_bytes=MEBIBYTE, memory_swap_bytes=UNLIMITED))


def test_without_swap_accounting_the_first_limit_has_to_do(v2, v1):
    (v2.parent / "memory.swap.max").unlink()
    wanted = Wanted(memory_bytes=MEBIBYTE, memory_swap_bytes=MEBIBYTE)
    assert [("memory.max", str(MEBIBYTE))] == _short(v2, wanted)
    assert [("memory.limit_in_bytes", str(MEBIBYTE))] == _short(v1("memory"), wanted)


def test_memory_on_v1(v1):
    memory = v1("memory", files=("memory.memsw.limit_in_bytes",))
    wanted = Wanted(memory_bytes=64 * MEBIBYTE, memory_swap_bytes=UNLIMITED, memory_swappiness=7, oom_kill_disable=True)
    assert [
        ("memory.limit_in_bytes", str(64 * MEBIBYTE)),
        ("memory.memsw.limit_in_bytes", "-1"),
        ("memory.swappiness", "7"),
        ("memory.oom_control", "1"),
    ] == _short(memory, wanted)


def test_cpu(v1, v2):
    wanted = Wanted(cpu_shares=1024, cpu_quota_microseconds=25_000, cpu_period_microseconds=50_000)
    assert [("cpu.shares", "1024"), ("cpu.cfs_period_us", "50000"), ("cpu.cfs_quota_us", "25000")] == _short(
        v1("cpu", "cpuacct"), wanted
    )
    assert [("cpu.weight", "39"), ("cpu.max", "25000 50000")] == _short(v2, wanted)
    assert [("cpu.max", "max 50000")] == _short(v2, Wanted(cpu_period_microseconds=50_000))


def test_cpuset_and_pids_are_alike(v1, v2):
    wanted = Wanted(cpuset_cpus="0-1", cpuset_mems="0", pids=UNLIMITED)
    assert [("cpuset.cpus", "0-1"), ("cpuset.mems", "0"), ("pids.max", "max")] == _short(v2, wanted)
    assert [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")] == _short(v1("cpuset"), wanted)
    assert [("pids.max", "max")] == _short(v1("pids"), wanted)


def test_block_devices(v1, v2):
    wanted = Wanted(blkio_weight=500, read_bytes=(("8:0", 1024),), write_operations=(("8:16", 9),))
    assert [
        ("io.bfq.weight", "500"),
        ("io.weight", "4950"),
        ("io.max", "8:0 rbps=1024"),
        ("io.max", "8:16 wiops=9"),
    ] == _short(v2, wanted)
    files = ("blkio.throttle.read_bps_device", "blkio.throttle.write_iops_device")
    assert [
        ("blkio.throttle.read_bps_device", "8:0 1024"),
        ("blkio.throttle.write_iops_device", "8:16 9"),
    ] == _short(v1("blkio", files=files), wanted)


def test_what_a_hierarchy_does_not_control_is_left_out(v1):
    everything = Wanted(memory_bytes=MEBIBYTE, cpu_shares=2, pids=3, cpuset_cpus="0", blkio_weight=10)
    assert [("pids.max", "3")] == _short(v1("pids"), everything)
    assert {"memory", "cpu", "pids", "cpuset", "blkio"} == everything.controllers
    assert frozenset() == Wanted().controllers


@pytest.mark.parametrize(
    ("present", "wanted", "first"), [(64, 128, "memory.memsw.limit_in_bytes"), (64, 16, "memory.limit_in_bytes")]
)
def test_memory_never_exceeds_memory_with_swap_while_both_change(v1, monkeypatch, present, wanted, first):
    memory = v1("memory", files=("memory.memsw.limit_in_bytes",))
    group = memory.parent / "one"
    group.mkdir()
    (group / "memory.memsw.limit_in_bytes").write_text(str(present * MEBIBYTE))
    written = []
    monkeypatch.setattr(cgroup_limits, "write_setting", lambda _, setting: written.append(setting.file))
    limits = Wanted(memory_bytes=wanted * MEBIBYTE, memory_swap_bytes=2 * wanted * MEBIBYTE)
    cgroup_limits.apply(memory, group, limits)
    assert (first, 2) == (written[0], len(written))


@given(st.integers(2, 262_144), st.integers(2, 262_144))
def test_more_shares_are_never_less_weight(one, other):
    smaller, larger = sorted((one, other))
    assert 1 <= shares_to_weight(smaller) <= shares_to_weight(larger) <= 10_000


def test_the_ends_of_the_weights():
    assert (1, 10_000) == (shares_to_weight(2), shares_to_weight(262_144))
    assert (1, 10_000) == (cgroup_limits.blkio_to_io_weight(10), cgroup_limits.blkio_to_io_weight(1000))


def _short(hierarchy, wanted):
    return [(setting.file, setting.value) for setting in limit_settings(hierarchy, wanted)]
