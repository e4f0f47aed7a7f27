"""Volumes are filled from an image and entered by a part, without leaving them."""

import os
import stat
from pathlib import Path

import pytest

from real_engine.errors import EngineError, InvalidParameter
from real_engine.volumes.contents import copy_up, is_directory_or_missing, open_subpath


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    (root / "data/inner").mkdir(parents=True)
    (root / "data/file").write_text("content")
    os.link(root / "data/file", root / "data/inner/same")
    (root / "data/link").symlink_to("../../outside")
    os.mkfifo(root / "data/pipe")
    with (root / "data/sparse").open("wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"x")
    os.chmod(root / "data/file", 0o4751)
    os.chmod(root / "data", 0o1770)
    os.utime(root / "data", (1000, 1000))
    return root


def _copy(image: Path, volume: Path, path: str) -> bool:
    root = os.open(image, os.O_RDONLY)
    try:
        return copy_up(volume, root, path)
    finally:
        os.close(root)


def test_everything_is_copied_as_it_is(image: Path, tmp_path: Path):
    volume = tmp_path / "volume"
    volume.mkdir()
    assert _copy(image, volume, "/data")
    assert {"file", "inner", "link", "pipe", "sparse"} == set(os.listdir(volume))
    assert "content" == (volume / "file").read_text()
    assert 0o4751 == stat.S_IMODE((volume / "file").stat().st_mode)
    assert (volume / "file").stat().st_ino == (volume / "inner/same").stat().st_ino
    assert "../../outside" == os.readlink(volume / "link")
    assert stat.S_ISFIFO((volume / "pipe").stat().st_mode)
    sparse = (volume / "sparse").stat()
    assert 8 << 20 == sparse.st_size
    assert sparse.st_blocks * 512 < 1 << 20
    assert (0o1770, 1000) == (stat.S_IMODE(volume.stat().st_mode), volume.stat().st_mtime)


@pytest.mark.root
def test_owners_and_attributes_are_kept(image: Path, tmp_path: Path):
    os.chown(image / "data/file", 12, 34)
    os.chown(image / "data", 56, 78)
    os.chown(image / "data/link", 9, 9, follow_symlinks=False)
    os.setxattr(image / "data/inner", "user.note", b"here")
    volume = tmp_path / "volume"
    volume.mkdir()
    _copy(image, volume, "data")
    assert (12, 34) == ((volume / "file").stat().st_uid, (volume / "file").stat().st_gid)
    assert (56, 78) == (volume.stat().st_uid, volume.stat().st_gid)
    assert 9 == (volume / "link").lstat().st_uid
    assert b"here" == os.getxattr(volume / "inner", "user.note")


def test_a_volume_with_content_stays_as_it_is(image: Path, tmp_path: Path):
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "mine").touch()
    assert not _copy(image, volume, "/data")
    assert ["mine"] == os.listdir(volume)


def test_there_is_nothing_to_copy(image: Path, tmp_path: Path):
    volume = tmp_path / "volume"
    volume.mkdir()
    for path in ("/nosuch", "/data/file", "/data/file/below"):
        assert not _copy(image, volume, path)


def test_a_link_in_the_image_leads_only_into_the_image(image: Path, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (image / "way").symlink_to(outside)
    (image / "up").symlink_to("../../../../../../data/inner")
    volume = tmp_path / "volume"
    volume.mkdir()
    assert not _copy(image, volume, "/way")
    assert _copy(image, volume, "/up")
    assert ["same"] == os.listdir(volume)


def test_what_a_volume_may_be_mounted_over(image: Path):
    root = os.open(image, os.O_RDONLY)
    try:
        assert is_directory_or_missing(root, "/data")
        assert is_directory_or_missing(root, "/nosuch")
        assert not is_directory_or_missing(root, "/data/file")
    finally:
        os.close(root)


def test_a_subpath_stays_in_the_volume(tmp_path: Path):
    volume = tmp_path / "volume"
    (volume / "a/b").mkdir(parents=True)
    (volume / "out").symlink_to("/etc")
    (volume / "up").symlink_to("../..")
    descriptor = open_subpath(volume, "a/b")
    assert os.path.samestat(os.fstat(descriptor), os.stat(volume / "a/b"))
    os.close(descriptor)
    for bad in ("/a", "../a", "a/../..", "out", "up"):
        with pytest.raises(InvalidParameter):
            open_subpath(volume, bad)
    with pytest.raises(EngineError, match="no such file or directory"):
        open_subpath(volume, "nosuch")


@pytest.mark.root
def test_the_mode_of_a_pipe_is_not_given_to_what_a_link_in_its_place_leads_to(tmp_path, monkeypatch):
    # Another container that has the volume already can put a link there in between; chmod(2) would follow it.
    image, volume, host = tmp_path / "image", tmp_path / "volume", tmp_path / "host"
    (image / "data").mkdir(parents=True)
    volume.mkdir()
    os.mkfifo(image / "data/pipe")
    os.chmod(image / "data/pipe", 0o666)
    host.write_text("secret")
    host.chmod(0o600)
    utime = os.utime

    def swapping(path, *rest, **options):
        utime(path, *rest, **options)
        if path == "pipe":
            (volume / "pipe").unlink()
            (volume / "pipe").symlink_to(host)

    monkeypatch.setattr(os, "utime", swapping)
    root = os.open(image, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert copy_up(volume, root, "/data")
    finally:
        os.close(root)
    assert 0o600 == stat.S_IMODE(host.stat().st_mode)
    assert (volume / "pipe").is_symlink()
