"""Mount points of a container: precedence, what is made, what is released."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.errors import EngineError, InvalidParameter, NotFound
from real_engine.volumes.mounts import MountPoint, acquire_mounts, end_mounts, release_mounts, resolve_mounts
from real_engine.volumes.store import Volumes


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path / "root")


def _nobody(name):
    raise NotFound(f"No such container: {name}")


def _resolve(volumes, others=_nobody, config=None, root=None, **host):
    return resolve_mounts(host, config or {}, None, volumes, others, container_id="c1", image_root=root)


def _by_place(points):
    return {point.destination: point for point in points}


def test_a_bind_makes_its_directory_and_a_mount_does_not(volumes, tmp_path):
    missing = tmp_path / "missing/deep"
    mount = {"Type": "bind", "Source": str(missing), "Target": "/b"}
    with pytest.raises(InvalidParameter) as caught:
        _resolve(volumes, Mounts=[mount])
    assert f'invalid mount config for type "bind": bind source path does not exist: {missing}' == str(caught.value)
    (point,) = _resolve(volumes, Binds=[f"{missing}:/b:ro"])
    assert missing.is_dir()
    assert {
        "Type": "bind",
        "Source": str(missing),
        "Destination": "/b",
        "Mode": "ro",
        "RW": False,
        "Propagation": "rprivate",
    } == point.to_api()
    other = tmp_path / "other"
    _resolve(volumes, Mounts=[{**mount, "Source": str(other), "BindOptions": {"CreateMountpoint": True}}])
    assert other.is_dir()


def test_volumes_are_made_and_referred_to(volumes):
    points = _by_place(
        _resolve(
            volumes,
            config={"Volumes": {"/anon": {}, "/named": {}}},
            Binds=["vol:/named"],
            Mounts=[{"Type": "volume", "Source": "two", "Target": "/two", "VolumeOptions": {"Labels": {"a": "b"}}}],
        )
    )
    assert {"/anon", "/named", "/two"} == set(points)
    assert ("z", "z", "") == tuple(points[place].mode for place in ("/named", "/two", "/anon"))
    assert {"a": "b"} == volumes.get("two").labels
    assert volumes.get(points["/anon"].name).anonymous
    assert all(["c1"] == volumes.users(point.name) for point in points.values())
    release_mounts(list(points.values()), volumes, "c1", remove_anonymous=True)
    assert ["two", "vol"] == [volume.name for volume in volumes.find()[0]]


@pytest.mark.parametrize(
    "host",
    [
        {"Binds": ["v1:/b", "v2:/b/"]},
        {"Binds": ["v1:/b"], "Tmpfs": {"/b": ""}},
        {"Binds": ["v1:/b"], "Mounts": [{"Type": "volume", "Source": "v2", "Target": "/b"}]},
        {"Mounts": [{"Type": "tmpfs", "Target": "/b"}, {"Type": "volume", "Source": "v2", "Target": "/b"}]},
    ],
)
def test_two_at_one_place_are_refused_before_anything_is_made(volumes, host):
    with pytest.raises(InvalidParameter) as caught:
        _resolve(volumes, **host)
    assert "Duplicate mount point: /b" == str(caught.value)
    assert [] == volumes.find()[0]


def test_a_volume_that_cannot_be_made_takes_the_references_of_the_others_with_it(volumes):
    with pytest.raises(NotFound, match="error looking up volume plugin nosuch"):
        _resolve(
            volumes,
            Mounts=[
                {"Type": "volume", "Target": "/anon"},
                {"Type": "volume", "Source": "vol", "Target": "/b"},
                {
                    "Type": "volume",
                    "Source": "x",
                    "Target": "/c",
                    "VolumeOptions": {"DriverConfig": {"Name": "nosuch"}},
                },
            ],
        )
    assert ["vol"] == [volume.name for volume in volumes.find()[0]]
    assert [] == volumes.users("vol")


def test_volumes_of_other_containers_come_first_and_may_be_replaced(volumes, tmp_path):
    theirs = resolve_mounts(
        {"Binds": ["vol:/d1", f"{tmp_path}:/d2:ro"], "Tmpfs": {"/t": ""}},
        {"Volumes": {"/anon": {}}},
        None,
        volumes,
        _nobody,
        container_id="theirs",
    )
    others = {"src": theirs}.__getitem__
    mine = _by_place(_resolve(volumes, others, {"Volumes": {"/d1": {}}}, VolumesFrom=["src:ro"]))
    assert {"/d1", "/d2", "/anon"} == set(mine)
    assert not any(point.writable for point in mine.values())
    assert ["theirs", "c1"] == volumes.users("vol")
    replaced = _by_place(_resolve(volumes, others, VolumesFrom=["src"], Binds=["/etc:/d1"]))
    assert ("bind", True) == (replaced["/d1"].type, replaced["/anon"].writable)
    release_mounts(theirs, volumes, "theirs", remove_anonymous=True)
    assert volumes.get(mine["/anon"].name).anonymous  # c1 still uses it
    release_mounts(list(mine.values()), volumes, "c1", remove_anonymous=True)
    assert ["vol"] == [volume.name for volume in volumes.find()[0]]


def test_volumes_from_nobody(volumes):
    with pytest.raises(InvalidParameter, match="No such container: nosuch"):
        _resolve(volumes, VolumesFrom=["nosuch"])


def test_a_tmpfs_covers_an_images_volume_and_is_not_listed(volumes):
    (point,) = _resolve(volumes, config={"Volumes": {"/t": {}}}, Tmpfs={"/t": "size=1m"})
    assert ("tmpfs", False, 1 << 20) == (point.type, point.listed, point.size_bytes)
    assert [] == volumes.find()[0]


def test_an_empty_volume_gets_the_images_content_once(volumes, tmp_path):
    image = tmp_path / "image"
    (image / "data").mkdir(parents=True)
    (image / "data/file").write_text("from the image")
    (image / "single").touch()
    root = os.open(image, os.O_RDONLY)
    try:
        (point,) = _resolve(volumes, root=root, Binds=["vol:/data"])
        assert "from the image" == (Path(point.source) / "file").read_text()
        (Path(point.source) / "file").write_text("changed")
        _resolve(volumes, root=root, Binds=["vol:/data"])
        assert "changed" == (Path(point.source) / "file").read_text()
        (empty,) = _resolve(volumes, root=root, Binds=["other:/data:nocopy"])
        assert [] == os.listdir(empty.source)
        with pytest.raises(InvalidParameter, match="cannot mount volume over existing file, file exists /single"):
            _resolve(volumes, root=root, config={"Volumes": {"/single": {}}})
    finally:
        os.close(root)


def test_a_start_acquires_and_an_end_releases(volumes, tmp_path):
    events = []
    volumes.on_event = lambda action, name, attributes: events.append((action, attributes.get("destination")))
    bind = tmp_path / "bind"
    points = _resolve(volumes, Binds=["vol:/a:ro", "vol:/b", f"{bind}:/c"])
    events.clear()
    bind.rmdir()
    ready = acquire_mounts(points, volumes, "c1")
    assert bind.is_dir()  # made again, as Docker does
    assert str(Path(volumes.get("vol").mountpoint)) == ready[0].source
    end_mounts(points, volumes, "c1")
    assert [("mount", "/a"), ("mount", "/b"), ("unmount", None), ("unmount", None)] == events


@pytest.mark.root
def test_a_part_of_a_volume_is_mounted_while_it_is_in_use(volumes, tmp_path):
    def subpath(part):
        options = {"Subpath": part}
        return {"Type": "volume", "Source": "vol", "Target": f"/{part.replace('.', '')}", "VolumeOptions": options}

    points = _resolve(volumes, Mounts=[subpath("deep/part"), subpath("deep/file")])
    content = Path(volumes.get("vol").mountpoint)
    (content / "deep/part").mkdir(parents=True)
    (content / "deep/part/inner").touch()
    (content / "deep/file").write_text("text")
    (content / "out").symlink_to("/etc")
    ready = acquire_mounts(points, volumes, "c1")
    assert ["inner"] == os.listdir(ready[0].source)
    assert "text" == Path(ready[1].source).read_text()
    (content / "deep/part").rename(content / "deep/moved")
    (content / "deep/part").symlink_to("/etc")
    assert ["inner"] == os.listdir(ready[0].source)  # a link that is put there later leads nobody astray
    end_mounts(ready, volumes, "c1")
    assert [] == os.listdir(tmp_path / "root/volumes/.subpaths")
    assert ["inner"] == os.listdir(content / "deep/moved")
    for part in ("out", "nosuch"):
        with pytest.raises(EngineError):
            acquire_mounts(_resolve(volumes, Mounts=[subpath(part)]), volumes, "c1")
    assert [] == os.listdir(tmp_path / "root/volumes/.subpaths")
    acquire_mounts(points[1:], volumes, "c1")
    again = Volumes(tmp_path / "root")  # as after a crash
    again.settle()
    assert [] == os.listdir(tmp_path / "root/volumes/.subpaths")
    assert "text" == (content / "deep/file").read_text()


def test_a_start_that_fails_releases_what_it_had(volumes, tmp_path):
    events = []
    points = _resolve(volumes, Binds=["vol:/a", "other:/b"])
    release_mounts(points[1:], volumes, "c1")
    volumes.remove("other")
    volumes.on_event = lambda action, name, attributes: events.append((action, name))
    with pytest.raises(NotFound, match="get other: no such volume"):
        acquire_mounts(points, volumes, "c1")
    assert [("mount", "vol"), ("unmount", "vol")] == events


_texts = st.text("abc/", max_size=4)


@given(
    st.builds(
        MountPoint,
        type=st.sampled_from(("bind", "volume", "tmpfs")),
        destination=_texts,
        source=_texts,
        name=_texts,
        writable=st.booleans(),
        copy_up=st.booleans(),
        subpath=_texts,
        size_bytes=st.integers(0, 9),
        file_mode=st.none() | st.integers(0, 0o7777),
        options=st.tuples(_texts, _texts),
        labels=st.tuples(st.tuples(_texts, _texts)),
        listed=st.booleans(),
    )
)
def test_a_record_of_a_mount_point_gives_it_back(point):
    assert point == MountPoint.from_json(json.loads(json.dumps(point.to_json())))
    assert point.to_api().items() <= point.to_json().items()
