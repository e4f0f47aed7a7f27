"""Layers on the disk: whole and what their diff id says, or not there."""

import gzip
import hashlib
import io
import os
import socket
import stat
import threading

import pytest
import zstandard

from real_engine.errors import InvalidParameter, NotFound
from real_engine.images.blobs import BlobStore, Descriptor, DigestMismatch, digest_of
from real_engine.images.layers import EMPTY_DIFF_ID, LayerStore
from real_engine.images.packing import write_tar

FILES = {"etc": None, "etc/hostname": b"onggi\n", "bin": None, "bin/sh": b"#!" * 5000}


@pytest.fixture
def layers(tmp_path):
    return LayerStore(tmp_path / "layers", BlobStore(tmp_path / "images"))


@pytest.fixture
def plain(make_tar):
    return make_tar(FILES)


def nothing_left(layers):
    return [] == os.listdir(layers.root) and [] == os.listdir(layers.blobs.root / "partial")


def compressed_into(layers, data, media_type="application/vnd.oci.image.layer.v1.tar+gzip"):
    return layers.blobs.put(data, media_type)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_layer_of_an_archive(layers, plain, compress):
    layer = layers.apply(io.BytesIO(compress(plain)))
    assert digest_of(plain) == layer.diff_id
    assert layers.root / layer.diff_id[7:] / "diff" == layer.directory
    assert b"onggi\n" == (layer.directory / "etc/hostname").read_bytes()
    assert sum(len(data) for data in FILES.values() if data) == layer.size
    assert layer == layers.get(layer.diff_id)
    assert layers.has(layer.diff_id)
    assert [layer.diff_id] == list(layers.diff_ids())


def test_its_tar_comes_back_byte_for_byte(layers, plain):
    odd = plain + bytes(10_240)  # more zeros at the end than need be, as GNU tar writes them: they count
    for data in (plain, odd):
        diff_id = layers.apply(io.BytesIO(data)).diff_id
        with layers.tar(diff_id) as file:
            assert data == file.read()
        assert len(data) == layers.tar_size(diff_id)


def test_a_pulled_layer_is_kept_as_it_came(layers, plain):
    packed = gzip.compress(plain)
    blob = compressed_into(layers, packed)
    layer = layers.apply(io.BytesIO(packed), expected_diff_id=digest_of(plain), blob=blob)
    assert [blob.digest] == list(layers.blobs.digests())
    assert (blob,) == layers.archives(layer.diff_id)
    assert blob == layers.compressed(layer.diff_id)
    with layers.tar(layer.diff_id) as file:
        assert plain == file.read()
    assert len(plain) == layers.tar_size(layer.diff_id)


def test_a_made_layer_is_compressed_the_same_every_time(layers, tmp_path, plain):
    first = layers.compressed(layers.apply(io.BytesIO(plain)).diff_id)
    other = LayerStore(tmp_path / "other/layers", BlobStore(tmp_path / "other/images"))
    assert first == other.compressed(other.apply(io.BytesIO(plain)).diff_id)
    assert plain == gzip.decompress(layers.blobs.read(first.digest))
    assert first == layers.compressed(digest_of(plain))


def test_the_wrong_layer_leaves_nothing(layers, plain):
    wanted = digest_of(b"another")
    with pytest.raises(DigestMismatch, match=wanted):
        layers.apply(io.BytesIO(plain), expected_diff_id=wanted)
    assert nothing_left(layers)
    assert [] == list(layers.blobs.digests())


@pytest.mark.parametrize("data", [b"x" * 512, b"short", gzip.compress(b"x" * 600)])
def test_what_is_no_archive_leaves_nothing(layers, data):
    with pytest.raises(InvalidParameter):
        layers.apply(io.BytesIO(data))
    assert nothing_left(layers)


def test_an_archive_that_ends_midway_leaves_nothing(layers, plain):
    for cut in (100, 700, 1700, 3000):
        with pytest.raises(InvalidParameter, match="EOF"):
            layers.apply(io.BytesIO(plain[:cut]))
    assert nothing_left(layers)


def test_a_full_disk_leaves_nothing(layers, plain, monkeypatch):
    def full(_descriptor, _data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(OSError, match="No space left"):
        layers.apply(io.BytesIO(plain))
    monkeypatch.undo()
    assert nothing_left(layers)


def test_a_layer_that_is_here_is_not_read_again(layers, plain):
    layer = layers.apply(io.BytesIO(plain))

    class Unreadable:
        def read(self, _size=-1, /):
            raise AssertionError("it was read")

    again = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layers.blobs.put(gzip.compress(plain)).digest, 1)
    assert layer == layers.apply(Unreadable(), expected_diff_id=layer.diff_id, blob=again)
    assert again not in layers.archives(layer.diff_id)  # what wasn't read isn't known to be this layer's


def test_a_layer_whose_archive_was_lost_gets_another(layers, plain):
    layer = layers.apply(io.BytesIO(plain))
    layers.blobs.remove(layer.diff_id)
    assert not layers.has(layer.diff_id)
    with pytest.raises(NotFound, match="archive"):
        layers.tar(layer.diff_id)
    assert layer == layers.apply(io.BytesIO(plain), expected_diff_id=layer.diff_id)
    with layers.tar(layer.diff_id) as file:
        assert plain == file.read()


def test_many_threads_make_one_layer(layers, plain):
    found, failed = [], []

    def apply(expected):
        try:
            found.append(layers.apply(io.BytesIO(plain), expected_diff_id=expected))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=apply, args=(digest_of(plain) if n % 2 else None,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failed
    assert 8 == len(found)
    assert 1 == len(set(found))
    assert [digest_of(plain)[7:]] == os.listdir(layers.root)


def test_removing_gives_everything_back(layers, plain):
    layer = layers.apply(io.BytesIO(plain))
    layers.claim(layer.diff_id)
    assert layer.size + len(plain) == layers.remove(layer.diff_id)
    assert nothing_left(layers)
    assert [] == list(layers.blobs.digests())
    assert 0 == layers.remove(layer.diff_id)
    with pytest.raises(NotFound):
        layers.get(layer.diff_id)


def test_a_new_layer_stays_for_who_made_it_or_asked(layers, plain):
    diff_id = layers.apply(io.BytesIO(plain)).diff_id
    assert 0 == layers.remove(diff_id)
    layers.claim(diff_id)
    assert layers.has(diff_id)
    assert 0 == layers.remove(diff_id)
    assert 0 < layers.remove(diff_id, though_new=True)


def test_what_a_killed_engine_left_is_removed(layers):
    (layers.root / ".building-1/diff").mkdir(parents=True)
    (layers.root / ".building-1/diff/file").write_bytes(b"x")
    (layers.root / ".removed-abc").mkdir()
    (layers.root / "init").mkdir()
    layers.remove_abandoned()
    assert ["init"] == os.listdir(layers.root)


def test_the_empty_layer(layers):
    layer = layers.empty()
    assert EMPTY_DIFF_ID == layer.diff_id == f"sha256:{hashlib.sha256(bytes(1024)).hexdigest()}"
    assert (0, []) == (layer.size, os.listdir(layer.directory))


@pytest.mark.parametrize("diff_id", ["", "../../etc", "sha256:..", "sha256:" + "x" * 64])
def test_a_diff_id_never_becomes_another_path(layers, diff_id):
    for call in (layers.directory, layers.get, layers.has, layers.remove):
        with pytest.raises(InvalidParameter):
            call(diff_id)


def test_the_root_is_readable_whatever_the_umask(layers, plain):
    before = os.umask(0o077)
    try:
        layer = layers.apply(io.BytesIO(plain))
    finally:
        os.umask(before)
    assert 0o755 == stat.S_IMODE(layer.directory.stat().st_mode)


def tree_of(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return b"".join(write_tar(descriptor, whole_seconds=True))
    finally:
        os.close(descriptor)


@pytest.mark.root
def test_an_upper_directory_becomes_a_layer_and_its_tar_makes_it_again(layers, tmp_path):
    upper = tmp_path / "upper"
    (upper / "opaque").mkdir(parents=True)
    os.setxattr(upper / "opaque", layers.marks.opaque, b"y")
    (upper / "opaque/new").write_bytes(b"new")
    os.mknod(upper / "gone", stat.S_IFCHR, 0)
    os.link(upper / "opaque/new", upper / "hard")
    os.setxattr(upper / "hard", "user.note", b"\0\xff")
    os.mkfifo(upper / "pipe")
    os.chown(upper / "pipe", 12, 34)
    layer = layers.commit(upper)
    again = layers.commit(layer.directory)
    assert layer == again
    assert tree_of(upper) == tree_of(layer.directory)
    assert layers.marks.is_opaque(str(layer.directory / "opaque"))
    with layers.tar(layer.diff_id) as file:
        assert layer.diff_id == digest_of(file.read())
    assert 3 == layer.size  # a hard link counts once


@pytest.fixture
def upper(tmp_path, layers):
    """An upper directory with all that one can have in it."""
    upper = tmp_path / "upper"
    (upper / "opaque/deep").mkdir(parents=True)
    os.setxattr(upper / "opaque", layers.marks.opaque, b"y")
    (upper / "opaque/new").write_bytes(b"new")
    os.link(upper / "opaque/new", upper / "hard")
    os.mknod(upper / "gone", stat.S_IFCHR, 0)
    os.symlink("new", upper / "opaque/link")
    (upper / "opaque/deep/empty").touch(mode=0o4711)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(upper / "opaque/socket"))
    return upper


@pytest.mark.root
def test_an_upper_directory_that_is_taken_is_the_layer_that_a_commit_of_it_makes(layers, upper, tmp_path):
    other = LayerStore(tmp_path / "other", BlobStore(tmp_path / "other images"))
    expected = other.commit(upper)
    number = (upper / "opaque/new").stat().st_ino
    upper.chmod(0o700)
    layer = layers.take(upper)
    assert (expected.diff_id, expected.size) == (layer.diff_id, layer.size)
    assert number == (layer.directory / "opaque/new").stat().st_ino  # nothing was copied
    assert [] == os.listdir(upper)
    for name in (".", "opaque", "opaque/deep", "opaque/deep/empty", "opaque/new", "hard", "opaque/link"):
        was, now = os.lstat(expected.directory / name), os.lstat(layer.directory / name)
        assert (was.st_mode, was.st_uid, was.st_nlink) == (now.st_mode, now.st_uid, now.st_nlink)
        assert name == "." or was.st_mtime_ns == now.st_mtime_ns, name
    assert sorted(os.listdir(expected.directory / "opaque")) == sorted(os.listdir(layer.directory / "opaque"))
    assert layers.marks.is_opaque(str(layer.directory / "opaque"))
    with layers.tar(layer.diff_id) as file:
        assert layer.diff_id == digest_of(file.read())


@pytest.mark.root
def test_an_upper_directory_whose_layer_is_there_is_taken_all_the_same(layers, upper):
    layer = layers.commit(upper)
    assert layer == layers.take(upper)
    assert [] == os.listdir(upper)
    assert [layer.diff_id[7:]] == os.listdir(layers.root)


@pytest.mark.root
@pytest.mark.parametrize("where", ["real_engine.images.layers.syncfs", "real_engine.images.blobs.os.replace"])
def test_an_upper_directory_that_can_not_be_taken_is_left(layers, upper, monkeypatch, where):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    before = tree_of(upper)
    with monkeypatch.context() as patched:
        patched.setattr(where, full)
        with pytest.raises(OSError, match="No space left"):
            layers.take(upper)
    assert before == tree_of(upper)
    assert nothing_left(layers)
    assert [] == list(layers.blobs.digests())


@pytest.mark.root
def test_nothing_changed_is_the_empty_layer(layers, tmp_path):
    (tmp_path / "upper").mkdir()
    assert EMPTY_DIFF_ID == layers.commit(tmp_path / "upper").diff_id


def test_an_archive_is_not_taken_for_that_of_a_layer_that_it_is_not(layers, plain, make_tar):
    # A hostile image names somebody else's layer as the diff id of an archive of its own. What `docker save` and
    # `docker push` give of the other's image must stay what it was.
    layer = layers.apply(io.BytesIO(plain), expected_diff_id=digest_of(plain))
    evil = gzip.compress(make_tar({"evil": b"evil"}))
    blob = compressed_into(layers, evil)
    assert layer == layers.apply(io.BytesIO(evil), expected_diff_id=layer.diff_id, blob=blob)
    assert blob.digest not in [known.digest for known in layers.archives(layer.diff_id)]
    assert blob.digest != layers.compressed(layer.diff_id).digest

    for known in layers.archives(layer.diff_id):  # nor where the layer's own archive has been lost
        layers.blobs.remove(known.digest)
    with pytest.raises(DigestMismatch):
        layers.apply(io.BytesIO(evil), expected_diff_id=layer.diff_id, blob=blob)
    assert () == layers.archives(layer.diff_id)
    assert not layers.has(layer.diff_id)
    good = compressed_into(layers, gzip.compress(plain))
    assert layer == layers.apply(io.BytesIO(gzip.compress(plain)), expected_diff_id=layer.diff_id, blob=good)
    with layers.tar(layer.diff_id) as file:
        assert plain == file.read()
