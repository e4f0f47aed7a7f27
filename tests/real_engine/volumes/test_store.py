"""Volumes: made, found, used, removed, as Docker does; on the local driver and on a plugin's."""

import os
import threading
from pathlib import Path

import pytest

from real_engine.errors import Conflict, EngineError, InvalidParameter, NotFound
from real_engine.filters import Filters
from real_engine.volumes.store import ANONYMOUS_LABEL, Volumes


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path)


def _raises(kind, message):
    return pytest.raises(kind, match=f"^{message}$")


def test_a_volume_is_made_once_and_survives_a_restart(volumes: Volumes, tmp_path: Path):
    made = volumes.create("v1", labels={"a": "b"})
    (Path(made.mountpoint) / "file").touch()
    again = volumes.create("v1", labels={"other": "label"})
    assert made == again
    assert made == Volumes(tmp_path).get("v1")
    assert {"CreatedAt", "Driver", "Labels", "Mountpoint", "Name", "Options", "Scope"} == set(made.to_json())
    assert ["file"] == os.listdir(made.mountpoint)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (
            {"name": "x y"},
            InvalidParameter,
            (
                'create x y: "x y" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            ),
        ),
        (
            {"name": "a"},
            InvalidParameter,
            "create a: volume name is too short, names should be at least two alphanumeric characters",
        ),
        ({"name": "v1", "options": {"foo": "bar"}}, InvalidParameter, 'create v1: invalid option: "foo"'),
        ({"name": "v1", "options": {"o": "bind"}}, InvalidParameter, 'create v1: missing required option: "device"'),
        ({"name": "v1", "options": {"device": "/d"}}, InvalidParameter, 'create v1: missing required option: "type"'),
        (
            {"name": "v1", "options": {"size": "1m"}},
            InvalidParameter,
            "create v1: quota size requested but no quota support",
        ),
        (
            {"name": "v1", "driver": "nosuch"},
            NotFound,
            'create v1: error looking up volume plugin nosuch: plugin "nosuch" not found',
        ),
    ],
)
def test_what_cannot_be_made(volumes: Volumes, tmp_path: Path, arguments, kind, message):
    with pytest.raises(kind) as caught:
        volumes.create(**arguments)
    assert message == str(caught.value)
    assert [] == os.listdir(tmp_path / "volumes")


@pytest.mark.parametrize("name", ["..", ".drivers", "a/b", "../v1", "-x", ""])
def test_no_name_leads_out(volumes: Volumes, name):
    with _raises(NotFound, f"get {name}: no such volume"):
        volumes.get(name)


def test_a_volume_in_use_stays(volumes: Volumes):
    volumes.create("v1", container_id="c1")
    volumes.refer("v1", "c2")
    with pytest.raises(Conflict) as caught:
        volumes.remove("v1", force=True)
    assert "remove v1: volume is in use - [c1, c2]" == str(caught.value)
    volumes.forget("v1", "c1")
    volumes.forget("v1", "c2")
    volumes.remove("v1")
    with _raises(NotFound, "get v1: no such volume"):
        volumes.remove("v1")
    volumes.remove("v1", force=True)


def test_listing_with_filters(volumes: Volumes):
    volumes.create("one", labels={"kind": "x"})
    volumes.create("two", container_id="c1")

    def names(**filters):
        return [volume.name for volume in volumes.find(Filters(filters))[0]]

    assert ["one", "two"] == names()
    assert ["one"] == names(label=["kind=x"])
    assert [] == names(label=["kind=y"])
    assert ["one"] == names(dangling=["true"])
    assert ["two"] == names(dangling=["0"])
    assert ["two"] == names(name=["tw"])
    assert [] == names(driver=["loc"])
    for bad in ({"x": ["y"]}, {"dangling": ["y"]}):
        with pytest.raises(InvalidParameter):
            names(**bad)


def test_pruning_spares_names_and_users(volumes: Volumes):
    named = volumes.create("named")
    anonymous = volumes.create()
    used = volumes.create(container_id="c1")
    assert {ANONYMOUS_LABEL: ""} == anonymous.labels
    (Path(anonymous.mountpoint) / "file").write_bytes(b"12345")
    assert ([anonymous.name], 5) == volumes.prune()
    assert {named.name, used.name} == {volume.name for volume in volumes.find()[0]}
    assert (["named"], 0) == volumes.prune(Filters({"all": ["true"]}))
    assert [used.name] == [volume.name for volume in volumes.find()[0]]


def test_what_happens_is_told(volumes: Volumes):
    told = []
    volumes.on_event = lambda *event: told.append(event)
    volumes.create("v1")
    volumes.acquire("v1", "c1", destination="/d", writable=False)
    volumes.release("v1", "c1")
    volumes.remove("v1")
    mount = {"driver": "local", "container": "c1", "destination": "/d", "read/write": "false", "propagation": ""}
    assert [
        ("create", "v1", {"driver": "local"}),
        ("mount", "v1", mount),
        ("unmount", "v1", {"driver": "local", "container": "c1"}),
        ("destroy", "v1", {"driver": "local"}),
    ] == told


def test_disk_usage(volumes: Volumes):
    volume = volumes.create("v1", container_id="c1")
    (Path(volume.mountpoint) / "file").write_bytes(b"123")
    assert [{"Size": 3, "RefCount": 1}] == [one["UsageData"] for one in volumes.disk_usage()]


def test_many_at_once_make_one(volumes: Volumes, tmp_path: Path):
    barrier = threading.Barrier(8)

    def create(number: int) -> None:
        barrier.wait()
        volumes.create("v1", container_id=f"c{number}")

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ["v1"] == os.listdir(tmp_path / "volumes")
    assert 8 == len(volumes.users("v1"))


def test_what_a_crash_left_is_swept(volumes: Volumes, tmp_path: Path):
    volumes.create("v1")
    for name in (".creating-1", ".removing-2"):
        (tmp_path / "volumes" / name / "_data").mkdir(parents=True)
    volumes.settle()
    assert ["v1"] == os.listdir(tmp_path / "volumes")


def test_a_volume_whose_directories_a_container_made_too_deep_is_removed_all_the_same(volumes: Volumes, tmp_path: Path):
    place = os.open(volumes.create("v1").mountpoint, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=place)
        below = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    assert [0] == [used["UsageData"]["Size"] for used in volumes.disk_usage()]
    volumes.remove("v1")
    assert [] == os.listdir(tmp_path / "volumes")


def _mounted(path: str) -> bool:
    return os.path.ismount(path) or any(f" {path} " in line for line in open("/proc/self/mountinfo"))


@pytest.mark.root
def test_a_device_is_mounted_while_it_is_in_use(volumes: Volumes, tmp_path: Path):
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=5,nodev"}
    place = volumes.create("v1", options=options).mountpoint
    volumes.acquire("v1", "c1")
    volumes.acquire("v1", "c1")
    volumes.acquire("v1", "c2")
    try:
        status = os.statvfs(place)
        assert 1 << 20 == status.f_blocks * status.f_frsize
        assert 5 == os.stat(place).st_uid
        volumes.release("v1", "c1")
        volumes.release("v1", "c1")
        assert _mounted(place)
    finally:
        volumes.release("v1", "c2")
    assert not _mounted(place)


@pytest.mark.root
def test_a_bind_is_not_deleted_with_its_volume(volumes: Volumes, tmp_path: Path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    volumes.create("v1", options={"type": "none", "o": "bind,ro", "device": str(precious)})
    place = volumes.acquire("v1", "c1")
    assert ["file"] == os.listdir(place)
    with pytest.raises(OSError, match="Read-only"):
        (place / "new").touch()
    with pytest.raises(Conflict):
        volumes._local.remove("v1")
    again = Volumes(tmp_path)  # as after a crash: the mount is there, and nobody knows of it
    again.remove("v1")
    assert ["file"] == os.listdir(precious)
    assert not (tmp_path / "volumes/v1").exists()


@pytest.mark.root
def test_what_others_have_mounted_in_a_volume_keeps_it(volumes: Volumes, tmp_path: Path):
    from real_engine.linux import mounts

    place = Path(volumes.create("v1").mountpoint) / "deep"
    place.mkdir()
    mounts.mount(str(tmp_path), str(place), None, mounts.MS_BIND)
    try:
        with pytest.raises(Conflict, match="something is mounted in it"):
            volumes.remove("v1")
    finally:
        mounts.umount2(str(place), mounts.MNT_DETACH)
    volumes.remove("v1")
    assert tmp_path.exists()


@pytest.mark.root
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"type": "none", "o": "bind", "device": "/nonexist"},
            "mount /nonexist:{place}, flags: 0x1000: no such file or directory",
        ),
        ({"type": "zzzfs", "o": "bar", "device": "/dev/zzz"}, "mount /dev/zzz:{place}, data: bar: no such device"),
        ({"type": "tmpfs", "o": "size=1m,foo=3", "device": "tmpfs"}, "mount tmpfs:{place}, data: size=1m,foo=3: inv"),
    ],
)
def test_the_kernels_reason_is_told(volumes: Volumes, options, reason):
    place = volumes.create("v1", options=options).mountpoint
    with pytest.raises(EngineError) as caught:
        volumes.acquire("v1", "c1")
    expected = f"error while mounting volume '{place}': failed to mount local volume: {reason.format(place=place)}"
    assert expected == str(caught.value)[: len(expected)]
    assert not _mounted(place)


class TestPlugin:
    """Volumes of another driver; `plugins` finds the sample plugin."""

    @pytest.fixture
    def volumes(self, tmp_path: Path, plugins, sample_plugin) -> Volumes:
        return Volumes(tmp_path / "root", plugins)

    def test_a_life(self, volumes: Volumes, sample_plugin, tmp_path: Path):
        made = volumes.create("team/v1", "sample", {"size": "3"}, {"a": "b"})
        assert ("sample", "global", {"a": "b"}, {"size": "3"}) == (made.driver, made.scope, made.labels, made.options)
        assert {"users": 0} == made.to_json()["Status"]
        assert ("VolumeDriver.Create", {"Name": "team/v1", "Opts": {"size": "3"}}) in sample_plugin.calls
        place = volumes.acquire("team/v1", "c1")
        assert tmp_path / "content/team/v1" == place
        assert {"c1"} == sample_plugin.volumes["team/v1"]
        volumes.release("team/v1", "c1")
        assert set() == sample_plugin.volumes["team/v1"]
        volumes.remove("team/v1")
        assert {} == sample_plugin.volumes

    def test_labels_survive_a_restart(self, volumes: Volumes, tmp_path: Path, plugins):
        volumes.create("v1", "sample", labels={"a": "b"})
        assert {"a": "b"} == Volumes(tmp_path / "root", plugins).get("v1").labels

    def test_one_name_one_driver(self, volumes: Volumes):
        volumes.create("v1", "sample")
        with pytest.raises(Conflict) as caught:
            volumes.create("v1", "local")
        assert "create v1: driver 'sample' already has volume 'v1': volume name must be unique" == str(caught.value)
        assert "sample" == volumes.create("v1").driver

    def test_volumes_that_the_plugin_made_by_itself_are_found(self, volumes: Volumes, sample_plugin):
        sample_plugin.volumes["theirs"] = set()
        assert "sample" == volumes.get("theirs").driver
        assert ["theirs"] == [volume.name for volume in volumes.find()[0]]

    def test_a_plugin_that_fails_is_a_warning_in_the_list(self, volumes: Volumes, sample_plugin):
        volumes.create("mine")
        sample_plugin.answers["VolumeDriver.List"] = (500, b'{"Err": "out of order"}')
        found, warnings = volumes.find()
        assert ["mine"] == [volume.name for volume in found]
        assert ["error listing volumes from driver 'sample': VolumeDriver.List: out of order"] == warnings

    def test_a_refusal_is_told_and_leaves_nothing(self, volumes: Volumes, sample_plugin):
        sample_plugin.answers["VolumeDriver.Create"] = (500, b'{"Err": "no room"}')
        with pytest.raises(EngineError) as caught:
            volumes.create("v1", "sample")
        assert "create v1: VolumeDriver.Create: no room" == str(caught.value)
        assert [] == volumes.find()[0]
