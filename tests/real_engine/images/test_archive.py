"""Archives: nothing leads out of the root, and what goes in comes out the same."""

import contextlib
import io
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from real_engine.errors import EngineError
from real_engine.images import tar_writer
from real_engine.images.archive import InvalidArchive, Policy, extract, write_tar
from real_engine.images.marks import Marks
from real_engine.images.streams import IteratorReader
from real_engine.images.tar_reader import CHARACTER, DIRECTORY, FIFO, HARD_LINK, SYMLINK, Entry, TarReader
from real_engine.images.trees import remove_tree

MARKS = Marks.for_this_process()


def tar(*items):
    """An archive of entries; an entry with data is a pair."""
    parts = []
    for item in items:
        entry, data = item if isinstance(item, tuple) else (item, b"")
        entry.size = len(data)
        parts += [tar_writer.header(entry), data, tar_writer.padding(len(data))]
    return b"".join([*parts, tar_writer.END])


def put(root, *items, policy=None):
    """Extract an archive of entries into the directory `root`."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return extract(io.BytesIO(tar(*items)), descriptor, policy)
    finally:
        os.close(descriptor)


def packed(root, paths=None, **options):
    """What `write_tar` makes of a directory: {name: (entry, data)}, in its order."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        data = b"".join(write_tar(descriptor, paths, **options))
    finally:
        os.close(descriptor)
    reader = TarReader(io.BytesIO(data))
    return {entry.name: (entry, b"".join(piece for _, piece in reader.pieces())) for entry in reader}


def listing(root):
    return sorted(os.fsdecode(path.relative_to(root)) for path in Path(root).rglob("*"))


def own(**attributes):
    """An entry of our own, so that tests need not be root."""
    return Entry(uid=os.geteuid(), gid=os.getegid(), **attributes)


@pytest.fixture
def places(tmp_path):
    """A root, and beside it something that nothing may touch."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    yield root, outside
    assert ["secret"] == os.listdir(outside)
    assert b"secret" == (outside / "secret").read_bytes()
    assert 1 == (outside / "secret").stat().st_nlink
    assert sorted(["outside", "root"]) == sorted(os.listdir(tmp_path))


# --- ways out --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x", "a/../../x", "..", "./../x"])
def test_a_name_that_leads_out_is_refused(places, name):
    root, _ = places
    with pytest.raises(InvalidArchive, match="outside"):
        put(root, (own(name=name), b"data"))


def test_an_absolute_name_is_beneath_the_root(places):
    root, _ = places
    put(root, (own(name="/etc//./passwd"), b"data"), (own(name="/../../x"), b"x"))
    assert b"data" == (root / "etc/passwd").read_bytes()
    assert b"x" == (root / "x").read_bytes()  # for a process whose root it is, `/..` is `/`


@pytest.mark.parametrize("target", ["../outside", "{outside}", "/", "../../../../../.."])
def test_a_link_to_the_outside_leads_nowhere(places, target):
    root, outside = places
    link = own(name="link", kind=SYMLINK, link=target.format(outside=outside))
    with contextlib.suppress(InvalidArchive):  # where the target isn't there beneath the root
        put(root, link, (own(name="link/secret"), b"overwritten"), own(name=f"link{outside}/secret"))
    assert (root / "link").is_symlink()


def test_a_file_takes_the_place_of_a_link_and_is_not_written_through_it(places):
    root, outside = places
    (root / "link").symlink_to(outside / "secret")
    put(root, (own(name="link"), b"data"))
    assert not (root / "link").is_symlink()
    assert b"data" == (root / "link").read_bytes()


def test_attributes_are_not_set_through_a_link(places):
    root, outside = places
    before = (outside / "secret").stat()
    put(root, own(name="link", kind=SYMLINK, link=str(outside / "secret"), mode=0o7777, mtime_ns=5))
    after = (outside / "secret").stat()
    assert (before.st_mode, before.st_mtime_ns, before.st_uid) == (after.st_mode, after.st_mtime_ns, after.st_uid)


def test_directory_times_are_not_set_through_a_link_that_took_its_place(places):
    root, outside = places
    before = outside.stat().st_mtime_ns
    put(
        root,
        own(name="d", kind=DIRECTORY, mtime_ns=7),
        own(name="d", kind=SYMLINK, link=str(outside)),
    )
    assert before == outside.stat().st_mtime_ns


@pytest.mark.parametrize("target", ["../outside/secret", "a/../../outside/secret"])
def test_a_hard_link_to_the_outside_is_refused(places, target):
    root, _ = places
    with pytest.raises(InvalidArchive, match="outside"):
        put(root, own(name="hard", kind=HARD_LINK, link=target))


def test_a_hard_link_through_a_link_stays_inside(places):
    root, outside = places
    with pytest.raises(InvalidArchive):
        put(
            root,
            own(name="link", kind=SYMLINK, link=str(outside)),
            own(name="hard", kind=HARD_LINK, link="link/secret"),
        )


def test_a_hard_link_to_a_link_is_not_followed(places):
    root, outside = places
    put(
        root,
        own(name="link", kind=SYMLINK, link=str(outside / "secret")),
        own(name="hard", kind=HARD_LINK, link="link"),
    )
    assert (root / "hard").is_symlink()


def test_a_link_chain_that_never_ends_is_refused(places):
    root, _ = places
    with pytest.raises(InvalidArchive):
        put(
            root,
            own(name="a", kind=SYMLINK, link="b"),
            own(name="b", kind=SYMLINK, link="a"),
            (own(name="a/x"), b"data"),
        )


_names = st.sampled_from(["a", "b", "..", ".", "a/b", "b/a", "/a", "../outside", "a/../..", "x/outside/secret"])
_targets = st.sampled_from(["a", "b", "..", "../..", "../outside", "../outside/secret", "/", "/proc/self/root", "a/b"])


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([b"0", SYMLINK, HARD_LINK, DIRECTORY, FIFO]), _names, _targets),
        min_size=1,
        max_size=7,
    )
)
def test_no_archive_whatever_leads_out(tmp_path, items):
    place = tmp_path / "place"
    place.mkdir(exist_ok=True)
    root, outside = place / "root", place / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    before = outside.stat().st_mtime_ns
    entries = [
        (own(name=name, kind=kind, link=target if kind in (SYMLINK, HARD_LINK) else "", mode=0o755, mtime_ns=9), b"")
        for kind, name, target in items
    ]
    with contextlib.suppress(InvalidArchive):
        put(root, *entries)
    assert ["outside", "root"] == sorted(os.listdir(place))
    assert ["secret"] == os.listdir(outside)
    assert (b"secret", 1) == ((outside / "secret").read_bytes(), (outside / "secret").stat().st_nlink)
    assert before == outside.stat().st_mtime_ns
    remove_tree(place)


# --- collisions, limits, policies ------------------------------------------------------------------------------------


def test_the_last_of_a_name_counts(places):
    root, _ = places
    put(
        root,
        (own(name="a"), b"file"),
        own(name="a", kind=DIRECTORY, mode=0o755),
        (own(name="a/b"), b"first"),
        (own(name="a/b"), b"second"),
        own(name="c", kind=DIRECTORY, mode=0o755),
        (own(name="c/d/e"), b"deep"),
        (own(name="c"), b"file"),
    )
    assert ["a", "a/b", "c"] == listing(root)
    assert b"second" == (root / "a/b").read_bytes()
    assert b"file" == (root / "c").read_bytes()


def test_what_was_in_a_directory_that_went_is_not_written_to(places):
    root, _ = places
    put(
        root,
        (own(name="d/e/one"), b"1"),
        (own(name="d"), b"file"),
        own(name="d", kind=DIRECTORY, mode=0o755),
        (own(name="d/e/two"), b"2"),
    )
    assert ["d", "d/e", "d/e/two"] == listing(root)


def test_a_copy_never_puts_a_file_and_a_directory_in_each_others_place(places):
    root, _ = places
    (root / "directory").mkdir()
    (root / "file").write_bytes(b"")
    policy = Policy(merge_only=True)
    with pytest.raises(InvalidArchive, match='cannot overwrite directory "directory" with non-directory'):
        put(root, own(name="directory"), policy=policy)
    with pytest.raises(InvalidArchive, match='cannot overwrite non-directory "file" with directory'):
        put(root, own(name="file", kind=DIRECTORY), policy=policy)


@pytest.mark.parametrize(
    ("policy", "message"),
    [(Policy(limit_entries=2), "more than 2 entries"), (Policy(limit_bytes=5), "more than 5 bytes")],
)
def test_limits_hold(places, policy, message):
    root, _ = places
    with pytest.raises(InvalidArchive, match=message):
        put(root, *((own(name=f"f{number}"), b"abc") for number in range(3)), policy=policy)


def test_a_size_that_nobody_has_is_refused_before_it_is_written(places):
    root, _ = places
    descriptor = os.open(root, os.O_RDONLY)
    entry = own(name="huge")
    entry.size = 1 << 50
    with pytest.raises(InvalidArchive, match="more than"):
        extract(io.BytesIO(tar_writer.header(entry)), descriptor)
    os.close(descriptor)
    assert [] == listing(root)


def test_devices_by_policy(places):
    root, _ = places
    device = own(name="null", kind=CHARACTER, device=(1, 3), mode=0o666)
    put(root, device, policy=Policy(devices="skip"))
    assert [] == listing(root)
    with pytest.raises(InvalidArchive, match="null is a device"):
        put(root, device, policy=Policy(devices="refuse"))


@pytest.mark.root
def test_devices_are_made_but_never_a_whiteout(places):
    root, _ = places
    put(root, own(name="null", kind=CHARACTER, device=(1, 3), mode=0o620), own(name="gone", kind=CHARACTER))
    assert ["null"] == listing(root)
    info = (root / "null").stat()
    assert (stat.S_IFCHR | 0o620, os.makedev(1, 3)) == (info.st_mode, info.st_rdev)


@pytest.mark.root
def test_owners_are_kept_or_set(places):
    root, _ = places
    items = (
        (Entry("f", uid=1234, gid=2345, mode=0o6755), b"x"),
        Entry("d", DIRECTORY, uid=7, gid=8, mode=0o1777),
        Entry("l", SYMLINK, link="f", uid=9, gid=10),
        Entry("p", FIFO, uid=11, gid=12, mode=0o600),
    )
    put(root, *items)
    found = {name: (root / name).lstat() for name in ("f", "d", "l", "p")}
    assert {"f": (1234, 2345), "d": (7, 8), "l": (9, 10), "p": (11, 12)} == {
        name: (info.st_uid, info.st_gid) for name, info in found.items()
    }
    assert [0o6755, 0o1777, 0o600] == [stat.S_IMODE(found[name].st_mode) for name in ("f", "d", "p")]
    put(root, *items, policy=Policy(owner=(5, 6)))
    assert {(5, 6)} == {((root / name).lstat().st_uid, (root / name).lstat().st_gid) for name in found}


@pytest.mark.root
def test_attributes_that_belong_to_the_machine_are_left_out(places):
    root, _ = places
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    put(
        root,
        (
            own(
                name="f",
                xattrs={
                    "security.capability": capability,
                    "user.kept": b"\0\xff",
                    "trusted.overlay.opaque": b"y",
                    "user.overlay.opaque": b"y",
                    "security.selinux": b"x",
                },
            ),
            b"x",
        ),
    )
    assert ["security.capability", "user.kept"] == sorted(os.listxattr(root / "f"))
    assert capability == os.getxattr(root / "f", "security.capability")


def test_times_to_the_nanosecond_and_of_directories_too(places):
    root, _ = places
    put(
        root,
        own(name="d", kind=DIRECTORY, mode=0o755, mtime_ns=1_000_000_000_123_456_789),
        (own(name="d/f", mtime_ns=-5_000_000_000), b"x"),
        own(name="d/l", kind=SYMLINK, link="f", mtime_ns=2_000_000_000_000_000_001),
    )
    assert 1_000_000_000_123_456_789 == (root / "d").stat().st_mtime_ns
    assert -5_000_000_000 == (root / "d/f").stat().st_mtime_ns
    assert 2_000_000_000_000_000_001 == (root / "d/l").lstat().st_mtime_ns


def test_holes_stay_holes(tmp_path):
    source, root = tmp_path / "source", tmp_path / "root"
    source.mkdir()
    root.mkdir()
    with (source / "sparse").open("wb") as file:
        file.seek(50_000_000)
        file.write(b"end")
    archive = subprocess.run(["tar", "-C", source, "-S", "-cf", "-", "sparse"], capture_output=True, check=True).stdout
    descriptor = os.open(root, os.O_RDONLY)
    extract(io.BytesIO(archive), descriptor)
    os.close(descriptor)
    found = (root / "sparse").stat()
    assert 50_000_003 == found.st_size
    assert found.st_blocks * 512 < 1_000_000
    with (root / "sparse").open("rb") as file:
        file.seek(-4, os.SEEK_END)
        assert b"\0end" == file.read()


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_umask_makes_no_difference(places, umask):
    root, _ = places
    before = os.umask(umask)
    try:
        put(root, (own(name="a/b", mode=0o664), b"x"), own(name="c", kind=DIRECTORY, mode=0o775))
    finally:
        os.umask(before)
    assert [0o755, 0o664, 0o775] == [stat.S_IMODE((root / name).stat().st_mode) for name in ("a", "a/b", "c")]


def test_a_name_that_is_too_long_is_told(places):
    root, _ = places
    with pytest.raises(InvalidArchive, match="too long"):
        put(root, (own(name="n" * 300), b"x"))


# --- whiteouts -------------------------------------------------------------------------------------------------------


def whiteout(path):
    info = path.lstat()
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


@pytest.mark.root
def test_whiteouts_become_overlayfs_marks_and_come_back(places):
    root, _ = places
    policy = Policy(marks=MARKS)
    put(
        root,
        own(name="d", kind=DIRECTORY, mode=0o755),
        own(name="d/.wh.gone"),
        own(name="o", kind=DIRECTORY, mode=0o755),
        own(name="o/.wh..wh..opq"),
        (own(name="o/new"), b"x"),
        own(name=".wh..wh.plnk", kind=DIRECTORY),
        policy=policy,
    )
    assert ["d", "d/gone", "o", "o/new"] == listing(root)
    assert whiteout(root / "d/gone")
    assert MARKS.is_opaque(str(root / "o"))
    names = list(packed(root, marks=MARKS))
    assert ["d/", "d/.wh.gone", "o/", "o/.wh..wh..opq", "o/new"] == names


@pytest.mark.root
@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_whiteout_hides_what_is_below_and_not_what_its_own_layer_has(places, whiteout_first):
    root, _ = places
    gone = [own(name=".wh.d"), own(name=".wh.f")]
    here = [own(name="d", kind=DIRECTORY, mode=0o755), (own(name="d/x"), b"x"), (own(name="f"), b"f")]
    put(root, *(gone + here if whiteout_first else here + gone), policy=Policy(marks=MARKS))
    assert ["d", "d/x", "f"] == listing(root)
    assert MARKS.is_opaque(str(root / "d"))
    assert b"f" == (root / "f").read_bytes()


@pytest.mark.parametrize("name", [".wh.", ".wh..", "a/.wh..."])
def test_a_whiteout_of_nothing_is_refused(places, name):
    root, _ = places
    with pytest.raises(InvalidArchive, match="no name of a whiteout"):
        put(root, own(name=name), policy=Policy(marks=MARKS))


def test_without_marks_they_are_names_like_others(places):
    root, _ = places
    put(root, (own(name=".wh.x"), b"x"))
    assert [".wh.x"] == listing(root)


# --- packing ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "b/c").mkdir(parents=True)
    (root / "b/c/file").write_bytes(b"content" * 20_000)
    (root / "a").write_bytes(b"")
    os.link(root / "b/c/file", root / "z")
    (root / "b/link").symlink_to("c/file")
    os.mkfifo(root / "pipe")
    os.mkdir(os.fsencode(root) + b"/\xff")
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(root)
    server.bind("socket")
    os.chdir(here)
    server.close()
    return root


def test_it_is_in_order_with_links_and_without_sockets(tree):
    found = packed(tree)
    assert ["a", "pipe", "z", "b/", "b/link", "b/c/", "b/c/file", "\udcff/"] == list(found)
    assert (HARD_LINK, "z") == (found["b/c/file"][0].kind, found["b/c/file"][0].link)
    assert b"content" * 20_000 == found["z"][1]
    assert (SYMLINK, "c/file") == (found["b/link"][0].kind, found["b/link"][0].link)


def test_what_is_packed_and_extracted_is_the_same(tree, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    source, target = (os.open(path, os.O_RDONLY) for path in (tree, copy))
    extract(io.BufferedReader(IteratorReader(write_tar(source))), target)
    first, second = b"".join(write_tar(source)), b"".join(write_tar(target))
    os.close(source)
    os.close(target)
    assert first == second


def test_names_can_be_given(tree):
    assert ["new/", "new/link", "new/c/", "new/c/file"] == list(packed(tree, {"b": "new"}))
    assert ["x", "y/", "y/file"] == list(packed(tree, {"a": "x", "b/c": "y"}))
    assert ["all/", "all/a"] == list(packed(tree, {".": "all"}))[:2]
    with pytest.raises(FileNotFoundError):
        packed(tree, {"nothing": "x"})


def test_the_last_part_of_a_path_is_not_followed_and_those_before_stay_inside(tree, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    (tree / "out").symlink_to("..")
    (tree / "secret").symlink_to(tmp_path / "secret")
    found = packed(tree, {"secret": "secret"})
    assert SYMLINK == found["secret"][0].kind
    with pytest.raises(FileNotFoundError):
        packed(tree, {"out/../../secret/x": "x"})
    assert SYMLINK == packed(tree, {"out/secret": "s"})["s"][0].kind  # `..` of the root is the root


def test_times_and_owners_can_be_set(tree):
    found = packed(tree, mtime_ns=0, owner=(7, 8))
    assert {(0, 7, 8)} == {(entry.mtime_ns, entry.uid, entry.gid) for entry, _ in found.values()}
    os.utime(tree / "a", ns=(1, 1_999_999_999))
    assert 1_000_000_000 == packed(tree, whole_seconds=True)["a"][0].mtime_ns


def test_what_is_skipped_is_out_with_all_in_it(tree):
    assert ["a", "pipe", "z", "\udcff/"] == list(packed(tree, skip=lambda path: path == "b"))


def test_a_file_that_becomes_shorter_is_told(tree):
    descriptor = os.open(tree, os.O_RDONLY)
    (tree / "big").write_bytes(bytes(3 << 20))
    pieces = write_tar(descriptor, {"big": "big"})
    next(pieces)
    next(pieces)
    os.truncate(tree / "big", 1 << 20)
    with pytest.raises(EngineError, match="big became shorter"):
        list(pieces)
    pieces.close()
    os.close(descriptor)


@pytest.mark.root
def test_what_overlayfs_moved_without_a_copy_is_no_layer(tree):
    os.setxattr(tree / "b", f"{MARKS.prefix}redirect", b"/old")
    with pytest.raises(EngineError, match="redirect_dir=off"):
        packed(tree, marks=MARKS)


def test_descriptors_are_closed(tree, tmp_path):
    before = sorted(os.listdir("/proc/self/fd"))
    packed(tree)
    with pytest.raises(InvalidArchive):
        put(tree, (own(name="q/w/e"), b"x"), own(name="../x"))
    assert before == sorted(os.listdir("/proc/self/fd"))


# --- trees -----------------------------------------------------------------------------------------------------------


def test_a_tree_that_is_deeper_than_the_stack_is_removed(tmp_path):
    top = os.open(tmp_path, os.O_RDONLY)
    here = os.dup(top)
    os.mkdir("deep", dir_fd=here)
    name = "deep"
    for _ in range(500):
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        name = "d"
        os.mkdir(name, dir_fd=here)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    remove_tree("deep", top)
    os.close(top)
    assert [] == os.listdir(tmp_path)


def test_removing_follows_no_link(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_bytes(b"")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "tree")
    (tmp_path / "tree").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "tree")
    remove_tree(tmp_path / "nothing")
    assert ["kept", "kept/file"] == listing(tmp_path)


@pytest.mark.root
def test_a_device_that_takes_a_files_place_is_not_opened(tmp_path, monkeypatch):
    # To open one is an act by itself: a watchdog's timer starts, a tape is rewound. A container's root may make some.
    (tmp_path / "file").write_bytes(b"data")
    opened = []
    true_open = os.open

    def swapping(path, flags, *rest, **options):
        if path == "file" and not flags & os.O_DIRECTORY:
            os.unlink(tmp_path / "file")
            os.mknod(tmp_path / "file", 0o600 | stat.S_IFIFO)  # blocks, or tells who waits at its other end, as well
            opened.append(flags)
        return true_open(path, flags, *rest, **options)

    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        monkeypatch.setattr(os, "open", swapping)
        with pytest.raises(EngineError, match="replaced while it was read"):
            b"".join(write_tar(root))
    finally:
        os.close(root)
    assert opened
    assert all(flags & os.O_PATH for flags in opened)
