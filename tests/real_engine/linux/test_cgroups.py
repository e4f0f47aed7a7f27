"""Hierarchies and limits of v1, hybrid and v2, on file trees that look like such machines."""

import os
from pathlib import Path

import pytest

from real_engine.errors import NotImplementedHere
from real_engine.linux import cgroups
from real_engine.linux.cgroups import Hierarchy
from real_engine.linux.devices import DeviceRule

V2 = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = """\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
35 31 0:32 / /sys/fs/cgroup/net_cls rw - cgroup cgroup rw,net_cls
36 31 0:33 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
37 31 0:30 / /elsewhere/memory\\040again rw - cgroup cgroup rw,memory"""
HYBRID = V1 + "\n38 31 0:34 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"


def machine(root: Path, mountinfo: str, own: str = "0::/\n") -> Path:
    """A root directory with what the kernel shows of its cgroups in /proc and /sys."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(f"22 27 0:21 / /proc rw - proc proc rw\n{mountinfo}\n")
    (root / "proc/self/cgroup").write_text(own)
    for line in mountinfo.splitlines():
        (root / line.split()[4].lstrip("/").replace("\\040", " ")).mkdir(parents=True, exist_ok=True)
    return root


def v2_group(group: Path, controllers: str, enabled: str = "") -> Path:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cgroup.controllers").write_text(f"{controllers}\n")
    (group / "cgroup.subtree_control").write_text(f"{enabled}\n")
    (group / "cgroup.procs").write_text("")
    return group


@pytest.mark.parametrize(("mountinfo", "mode"), [(V1, "v1"), (HYBRID, "hybrid"), (V2, "v2"), ("", "none")])
def test_mode(tmp_path, mountinfo, mode):
    assert mode == cgroups.mode(machine(tmp_path, mountinfo))


def test_v1_has_a_hierarchy_for_each_controller_that_counts(tmp_path):
    found = cgroups.hierarchies(machine(tmp_path, V1))
    assert [{"cpu", "cpuacct"}, {"memory"}, {"pids"}, set(), set()] == [set(each.controllers) for each in found]
    assert ["cpu,cpuacct", "memory", "pids", "net_cls", "systemd"] == [hierarchy.name for hierarchy in found]
    assert [False, False, False, True, True] == [hierarchy.on_demand for hierarchy in found]
    assert tmp_path / "sys/fs/cgroup/memory/onggi" == found[1].parent


def test_on_hybrid_a_v2_hierarchy_without_our_controllers_is_joined_on_demand(tmp_path):
    root = machine(tmp_path, HYBRID)
    v2_group(root / "sys/fs/cgroup/unified", "hugetlb")
    found = cgroups.hierarchies(root)
    assert [(2, True)] == [(each.version, each.on_demand) for each in found if each.version == 2]
    assert [1, 1, 1] == [each.version for each in found if not each.on_demand]


def test_the_cpuset_and_the_freezer_of_v1_are_joined_on_demand(tmp_path):
    lines = (
        "32 31 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
        "33 31 0:30 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"
        "34 31 0:31 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio"
    )
    found = cgroups.hierarchies(machine(tmp_path, lines))
    assert {"cpuset": True, "freezer": True, "blkio": False} == {each.name: each.on_demand for each in found}


def test_the_name_of_the_parent_group_is_the_callers(tmp_path):
    found = cgroups.hierarchies(machine(tmp_path, V1), "another")
    assert {"another"} == {each.parent.name for each in found}


def test_v2_as_root(tmp_path):
    root = machine(tmp_path, V2)
    top = v2_group(root / "sys/fs/cgroup", "cpuset cpu io memory pids")
    expected = Hierarchy(2, frozenset({"cpu", "cpuset", "io", "memory", "pids"}), top, top / "onggi")
    assert (expected,) == cgroups.hierarchies(root)


def test_a_second_mount_of_v2_elsewhere_is_passed_over(tmp_path):
    elsewhere = "40 22 0:30 / /var/tmp/chroot/sys/fs/cgroup rw - cgroup2 cgroup2 rw"
    root = machine(tmp_path, f"{V2}\n{elsewhere}")
    top = v2_group(root / "sys/fs/cgroup", "memory")
    assert [top] == [each.mount_point for each in cgroups.hierarchies(root)]


def test_v2_enables_the_controllers_for_the_children(tmp_path):
    root = machine(tmp_path, V2)
    top = v2_group(root / "sys/fs/cgroup", "cpu memory pids", enabled="memory")
    v2_group(top / "onggi", "")
    (hierarchy,) = cgroups.hierarchies(root)
    assert hierarchy == cgroups.prepare_parent(hierarchy)
    assert "+cpu +pids" == (top / "cgroup.subtree_control").read_text()
    assert "+cpu +memory +pids" == (top / "onggi/cgroup.subtree_control").read_text()


def test_v2_where_processes_are_in_the_way(tmp_path, monkeypatch):
    root = machine(tmp_path, V2)
    top = v2_group(root / "sys/fs/cgroup", "memory pids", enabled="pids")
    v2_group(top / "onggi", "")
    write = Path.write_text

    def refuse(path, *arguments):
        if path == top / "cgroup.subtree_control":
            raise OSError(16, "Device or resource busy")
        return write(path, *arguments)

    monkeypatch.setattr(Path, "write_text", refuse)
    prepared = cgroups.prepare_parent(cgroups.hierarchies(root)[0])
    assert {"pids"} == prepared.controllers
    assert "has processes of its own" in prepared.unavailable
    assert "+pids" == (top / "onggi/cgroup.subtree_control").read_text()


def test_v2_as_an_ordinary_user_takes_the_highest_group_that_is_delegated(tmp_path, monkeypatch):
    own = "user.slice/user-1000.slice/user@1000.service/app.slice/terminal.scope"
    root = machine(tmp_path, V2, f"0::/{own}\n")
    top = v2_group(root / "sys/fs/cgroup", "cpu memory pids")
    group = top
    for part in own.split("/"):
        group = v2_group(group / part, "memory pids")
    service = top / "user.slice/user-1000.slice/user@1000.service"
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).is_relative_to(service))
    (hierarchy,) = cgroups.hierarchies(root)
    assert (service / "onggi", {"memory", "pids"}, "") == (
        hierarchy.parent,
        hierarchy.controllers,
        hierarchy.unavailable,
    )


def test_v2_without_delegation_says_so(tmp_path, monkeypatch):
    root = machine(tmp_path, V2, "0::/user.slice\n")
    v2_group(v2_group(root / "sys/fs/cgroup", "memory") / "user.slice", "memory")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (hierarchy,) = cgroups.hierarchies(root)
    assert "delegated" in hierarchy.unavailable


def test_devices_on_v1():
    settings = cgroups.device_settings([DeviceRule("c", 1, 3), DeviceRule("b", 136, None, "r")])
    expected = [("devices.deny", "a"), ("devices.allow", "c 1:3 rwm"), ("devices.allow", "b 136:* r")]
    assert expected == [(setting.file, setting.value) for setting in settings]


def test_a_v1_cpuset_is_handed_down(tmp_path):
    top, parent = tmp_path / "cpuset", tmp_path / "cpuset/onggi"
    parent.mkdir(parents=True)
    for name, value in (("cpus", "0-1"), ("mems", "0")):
        (top / f"cpuset.{name}").write_text(f"{value}\n")
        (parent / f"cpuset.{name}").write_text("\n")
    (parent / "cgroup.clone_children").write_text("0\n")
    cgroups.prepare_parent(Hierarchy(1, frozenset({"cpuset"}), top, parent))
    assert ("0-1\n", "0\n", "1") == tuple(
        (parent / name).read_text() for name in ("cpuset.cpus", "cpuset.mems", "cgroup.clone_children")
    )


def test_kill_by_the_file_that_v2_has(tmp_path):
    (tmp_path / "cgroup.kill").write_text("")
    cgroups.kill(tmp_path)
    assert "1" == (tmp_path / "cgroup.kill").read_text()


def test_remove(tmp_path):
    (tmp_path / "group/made by itself/deeper").mkdir(parents=True)
    cgroups.remove(tmp_path / "group")
    cgroups.remove(tmp_path / "group")
    assert [] == list(tmp_path.iterdir())


def test_destroy_passes_over_what_does_not_exist(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/cgroup.procs").write_text("")
    (tmp_path / "there/cgroup.procs").unlink()
    cgroups.destroy([tmp_path / "never", tmp_path / "there"])
    assert [] == list(tmp_path.iterdir())


def test_v2_says_what_is_frozen(tmp_path):
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert cgroups.is_frozen(tmp_path)
    (tmp_path / "cgroup.freeze").write_text("1")
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    cgroups.set_frozen(tmp_path, False)
    assert "0" == (tmp_path / "cgroup.freeze").read_text()


def test_without_a_freezer_that_is_said(tmp_path):
    with pytest.raises(NotImplementedHere, match="no freezer cgroup"):
        cgroups.set_frozen(tmp_path, True)
    assert not cgroups.is_frozen(tmp_path)
