"""Limits that the machine doesn't know are left out, with Docker's words; those that it knows are not touched."""

from pathlib import Path

import pytest

from real_engine.daemon.containers import requests
from real_engine.daemon.containers.discards import discard_limits, files_of
from real_engine.linux.cgroups import Hierarchy

ALL = ("memory", "cpu", "cpuset", "pids", "blkio")
NOT = "Your kernel does not support"
OR = "or the cgroup is not mounted"


@pytest.mark.parametrize(
    ("asked", "lacking", "kept", "warning"),
    [
        (
            {"Memory": 1 << 25},
            "memory.memsw.limit_in_bytes",
            {"Memory": 1 << 25, "MemorySwap": -1},
            f"{NOT} swap limit capabilities {OR}. Memory limited without swap.",
        ),
        ({"Memory": 1 << 25, "MemorySwap": -1}, "memory.memsw.limit_in_bytes", {"MemorySwap": -1}, ""),
        (
            {"MemorySwappiness": 10},
            "memory.swappiness",
            {"MemorySwappiness": None},
            f"{NOT} memory swappiness capabilities {OR}. Memory swappiness discarded.",
        ),
        (
            {"OomKillDisable": True},
            "memory.oom_control",
            {"OomKillDisable": False},
            f"{NOT} OomKillDisable. OomKillDisable discarded.",
        ),
        (
            {"BlkioWeight": 100},
            "blkio.weight",
            {"BlkioWeight": 0},
            f"{NOT} Block I/O weight {OR}. Weight discarded.",
        ),
        (
            {"BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 10}]},
            "blkio.weight_device",
            {"BlkioWeightDevice": None},
            f"{NOT} Block I/O weight_device {OR}. Weight-device discarded.",
        ),
        (
            {"BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 10}]},
            "blkio.throttle.read_bps_device",
            {"BlkioDeviceReadBps": None},
            f"{NOT} BPS Block I/O read limit {OR}. Block I/O BPS read limit discarded.",
        ),
    ],
)
def test_a_file_that_groups_lack(tmp_path: Path, asked: dict, lacking: str, kept: dict, warning: str) -> None:
    group = tmp_path / "ours"
    group.mkdir()
    files = {
        "memory.memsw.limit_in_bytes",
        "memory.swappiness",
        "memory.oom_control",
        "blkio.weight",
        "blkio.weight_device",
        "blkio.throttle.read_bps_device",
    }
    has = files_of([Hierarchy(1, frozenset(ALL), tmp_path, group)])
    for name in files:
        (group / name).touch()
    whole = requests.host_config(asked)
    before = dict(whole)
    expected = ["OOM killer is disabled"] if "OomKillDisable" in asked else []
    assert expected == [text[:22] for text in discard_limits(whole, ALL, has)]
    assert before == whole
    (group / lacking).unlink()
    host = requests.host_config(asked)
    assert ([warning] if warning else []) == discard_limits(host, ALL, has)
    assert kept == {name: host[name] for name in kept}


def test_a_controller_that_there_is_not() -> None:
    host = requests.host_config({"Memory": 1 << 25, "PidsLimit": 5, "NanoCpus": 10**9})
    warnings = discard_limits(host, ("cpu",))
    assert [f"{NOT} memory limit capabilities", f"{NOT} PIDs limit capabilities"] == [
        text.partition(" or ")[0] for text in warnings
    ]
    assert (0, 0, None, 10**9) == tuple(host[name] for name in ("Memory", "MemorySwap", "PidsLimit", "NanoCpus"))


def test_files_are_looked_for_in_groups_of_the_controller_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/io.bfq.weight").touch()
    has = files_of(
        [
            Hierarchy(2, frozenset({"io"}), tmp_path, tmp_path / "a"),
            Hierarchy(1, frozenset({"memory"}), tmp_path, tmp_path / "b"),
        ]
    )
    assert has("blkio", ("blkio.weight", "io.bfq.weight"))
    assert not has("memory", ("io.bfq.weight",))
    assert not has("cpu", ("cpu.rt_runtime_us",))
