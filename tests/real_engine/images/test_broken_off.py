"""Work that is broken off: killed before any one of its changes to the disk, or out of room at any point.

An engine that is killed takes its page cache with it in no way, so these tests say nothing of power cuts; they say that
nothing half-made is ever taken for whole, and that what is half-made is gone after the next start, or at once when it
was an error.
"""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from real_engine.errors import EngineError
from real_engine.images.blobs import Descriptor, digest_of
from real_engine.images.build.builder import Builder
from real_engine.images.build.options import BuildOptions
from real_engine.images.build.output import BuildOutput
from real_engine.images.importing import import_tar
from real_engine.images.layers import LayerStore
from real_engine.images.layout_index import manifest_of
from real_engine.images.loading import load
from real_engine.images.marks import Marks
from real_engine.images.packing import write_tar
from real_engine.images.references import Reference
from real_engine.images.saving import save, select
from real_engine.images.store import ImageStore
from real_engine.images.trees import remove_tree
from real_engine.registry.media_types import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST

pytestmark = pytest.mark.root

CONTENT = os.urandom(200_000)
NEW = Reference.parse("new:latest")
PAGE = 4096  # bytes
CHANGES = frozenset(f"os.{name}" for name in ("link", "mkdir", "remove", "rename", "rmdir", "symlink", "truncate"))
"""Python's audit events of what changes the names of a file system, beside `open`."""

Work = Callable[[Path, ImageStore], object]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", directory], check=True, timeout=10)
    yield directory
    subprocess.run(["umount", "-l", directory], check=True, timeout=10)


def tree(directory: Path) -> Path:
    """A directory with what a layer can have in it."""
    (directory / "etc/deep/er").mkdir(parents=True)
    (directory / "etc/config").write_bytes(b"x")
    (directory / "big").write_bytes(CONTENT)
    os.link(directory / "big", directory / "etc/same")
    os.symlink("config", directory / "etc/link")
    os.mknod(directory / "etc/gone", 0o20000, 0)
    return directory


def packed(directory: Path) -> bytes:
    root = os.open(directory, os.O_RDONLY)
    try:
        return b"".join(write_tar(root, marks=Marks.for_this_process(), whole_seconds=True))
    finally:
        os.close(root)


def tag(store: ImageStore, image: object) -> None:
    store.tag(image, NEW)  # type: ignore[arg-type]


# --- the works: each makes the image `new` ----------------------------------------------------------------------------


def loading(root: Path) -> Work:
    other = root.parent / "other"
    other.mkdir()
    source = ImageStore(other)
    tag(source, import_tar(source, io.BytesIO(packed(tree(root.parent / "tree"))), architecture="amd64"))
    archive = b"".join(save(source, select(source, ["new"])))
    return lambda _, store: load(store, io.BytesIO(archive))


def importing(root: Path) -> Work:
    data = packed(tree(root.parent / "tree"))
    return lambda _, store: tag(store, import_tar(store, io.BytesIO(data), architecture="amd64"))


def pulling(root: Path) -> Work:
    """What a pull does with a layer's blob, its content, and at last the image."""
    data = packed(tree(root.parent / "tree"))
    compressed = gzip.compress(data, 1, mtime=0)
    diff_id, blob = digest_of(data), Descriptor(OCI_LAYER_GZIP, digest_of(compressed), len(compressed))
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["%b"]}}' % diff_id.encode()
    manifest = manifest_of(Descriptor(OCI_CONFIG, digest_of(config), len(config)), [blob])

    def work(_: Path, store: ImageStore) -> None:
        with store.blobs.writer(resume=blob.digest, durable=False) as writer:
            for start in range(writer.offset, len(compressed), 50_000):
                writer.write(compressed[start : start + 50_000])
            writer.commit(blob.digest)
        with store.blobs.open(blob.digest) as file:
            store.layers.apply(file, expected_diff_id=diff_id, blob=blob)
        tag(store, store.create(config, manifest=manifest, manifest_media_type=OCI_MANIFEST))

    return work


def committing(root: Path) -> Work:
    def work(root: Path, store: ImageStore) -> None:
        tag(store, store.commit(store.resolve("old"), root / "upper", container_config={}))

    tree(root / "upper")
    return work


def building(root: Path) -> Work:
    """Two layers: one of files of the context, and one that a build makes itself."""
    context = tree(root.parent / "context")
    (context / "etc/gone").unlink()
    (context / "Dockerfile").write_text("FROM old\nCOPY . /app/\nWORKDIR /new\nENV A=1\n")
    data = packed(context)

    def work(root: Path, store: ImageStore) -> None:
        builder = Builder(store, None, root / "builds")  # type: ignore[arg-type]
        builder.build(BuildOptions(tags=("new",), no_cache=True), io.BytesIO(data), BuildOutput(lambda _line: None))

    return work


WORKS = pytest.mark.parametrize(
    "prepare", [loading, importing, pulling, committing, building], ids=lambda w: w.__name__
)


@pytest.fixture
def root(disk: Path, make_tar: Callable[[dict[str, bytes | None]], bytes]) -> Path:
    """A data root with the image `old`."""
    root = disk / "root"
    (root / "builds").mkdir(parents=True)
    (root / "upper").mkdir()
    store = ImageStore(root)
    image = import_tar(store, io.BytesIO(make_tar({"file": b"old", "etc": None})), architecture="amd64")
    store.tag(image, Reference.parse("old"))
    return root


# --- what must be so afterwards ---------------------------------------------------------------------------------------


def check_whole(root: Path, store: ImageStore) -> None:
    """All that the store has is whole and belongs to an image, and there is nothing else."""
    images = store.images()
    assert "old:latest" in [name for image in images for name in image.repo_tags]
    assert {diff_id for image in images for diff_id in image.diff_ids} == set(store.layers.diff_ids())
    assert len(list(store.layers.diff_ids())) == len(os.listdir(root / "layers"))
    for diff_id in store.layers.diff_ids():
        with store.layers.tar(diff_id) as file:
            assert diff_id == digest_of(file.read())
        check_extracted(store.layers, diff_id)
    for digest in store.blobs.digests():
        with store.blobs.open(digest, verify=True):
            pass


def needed(store: ImageStore) -> set[str]:
    """The blobs of all images: configurations, archives of layers, and manifests."""
    index = json.loads((store.root / "index.json").read_bytes())
    archives = {one.digest for layer in store.layers.diff_ids() for one in store.layers.archives(layer)}
    return archives | {image.id for image in store.images()} | {one["digest"] for one in index["manifests"]}


def check_extracted(layers: LayerStore, diff_id: str) -> None:
    """A layer's directory is what its archive says."""
    directory = os.open(layers.directory(diff_id), os.O_RDONLY)
    try:
        again = b"".join(write_tar(directory, marks=layers.marks, whole_seconds=True))
    finally:
        os.close(directory)
    with layers.tar(diff_id) as file:
        assert _members(file.read()) == _members(again)


def is_gone(member: tarfile.TarInfo) -> bool:
    """Whether it is a whiteout, whose time is nobody's."""
    return "/.wh." in member.name


def _members(data: bytes) -> list[tuple[object, ...]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return sorted(
            (
                each.name,
                each.type,
                each.mode,
                each.uid,
                each.gid,
                each.size,
                each.linkname,
                each.mtime * (not is_gone(each)),
            )
            for each in archive
        )


def killed(work: Work, root: Path, after: int) -> bool:
    """Do it in a process of its own, that is killed before the change that comes after so many others."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
        return os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    left = after

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        creates = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if event in CHANGES or creates:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        store = ImageStore(root)
        sys.addaudithook(hook)
        work(root, store)
        os._exit(0)
    finally:
        os._exit(1)


@WORKS
def test_killed_before_any_change_to_the_disk(root: Path, prepare: Callable[[Path], Work]) -> None:
    work = prepare(root)
    fresh = root.rename(root.with_name("fresh"))
    points = 0
    while True:
        subprocess.run(["cp", "-a", fresh, root], check=True, timeout=10)
        if not killed(work, root, points):
            break
        points += 1
        store = ImageStore(root)
        store.recover()
        Builder(store, None, root / "builds")  # type: ignore[arg-type]
        check_whole(root, store)
        assert [] == os.listdir(root / "builds")
        assert prepare is pulling or [] == os.listdir(root / "images/partial")
        if points % 5 == 0:
            work(root, store)  # it can be done again
            check_whole(root, store)
            assert store.find(NEW) is not None
        remove_tree(root)
    assert points > 10
    store = ImageStore(root)
    check_whole(root, store)
    assert store.find(NEW) is not None


@WORKS
def test_no_room_at_any_point(root: Path, prepare: Callable[[Path], Work]) -> None:
    """With ever more room, by pages where it is about enough, until it is enough."""
    work = prepare(root)
    store = ImageStore(root)
    room, step, failures = 0, 40_000, 0
    while True:
        told = told_without_room(work, root, store, room)
        if not told and step == PAGE:
            break
        if told:
            failures += 1
            assert told.endswith("no space left on device")
            assert store.find(NEW) is None
            # Complete layers are kept for a while: who made them may be about to make an image of them.
            for diff_id in set(store.layers.diff_ids()) - {one for image in store.images() for one in image.diff_ids}:
                check_extracted(store.layers, diff_id)
                store.layers.remove(diff_id, though_new=True)
            check_whole(root, store)
            assert [] == os.listdir(root / "builds")
            assert {"blobs", "index.json", "oci-layout", "partial", "repositories.json"} == set(
                os.listdir(root / "images")
            )
            if prepare is pulling:
                assert needed(store) <= set(store.blobs.digests())  # what a pull has fetched, the next one uses
            else:
                assert needed(store) == set(store.blobs.digests())
                assert [] == os.listdir(root / "images/partial")
        else:
            store.remove("new")
            room, step = room - step, PAGE
        room += step
    assert failures > 3
    check_whole(root, store)
    assert store.find(NEW) is not None


def told_without_room(work: Work, root: Path, store: ImageStore, room: int) -> str:
    """What the error says when the disk has so many bytes left; "" if there was room enough."""
    ballast = root.parent / "ballast"
    disk = os.statvfs(root)
    ballast.write_bytes(bytes(max(0, disk.f_bavail * disk.f_frsize - room)))
    try:
        work(root, store)
    except EngineError as error:
        return str(error)
    except OSError as error:  # which the daemon words so
        return str(error.strerror).lower()
    finally:
        ballast.unlink()
    return ""
