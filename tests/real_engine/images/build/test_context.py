"""Build contexts: packed from a directory, received, and looked at without being extracted."""

import gzip
import hashlib
import http.server
import io
import os
import tarfile
import threading
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.errors import EngineError, InvalidParameter
from real_engine.images.archive import extract
from real_engine.images.build.context import pack, receive
from real_engine.images.build.copier import Dress
from real_engine.images.build.copying import CopySource, copy_into, find_sources
from real_engine.images.build.downloads import fetch, is_address, is_git
from real_engine.images.build.trees import Tree
from real_engine.images.trees import remove_tree

pytestmark = pytest.mark.root


def extracted(archive, root):
    extract(archive, root)


def names_of(directory, dockerfile="Dockerfile"):
    with pack(directory, dockerfile) as stream, tarfile.open(fileobj=stream) as archive:
        return {member.name: member for member in archive}


def test_a_directory_packed_without_what_is_ignored(tmp_path):
    for name in ("Dockerfile", "a", "d/keep", "d/drop", "d/e/f", "node_modules/x", "b.md", ".dockerignore"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text("node_modules\n*.md\nd\n!d/keep\nDockerfile\n")
    os.symlink("a", tmp_path / "link")
    os.link(tmp_path / "a", tmp_path / "twin")
    found = names_of(tmp_path)
    assert {"Dockerfile", "a", "twin", "d/keep", ".dockerignore", "link"} == set(found)
    assert {(0, 0, "", "")} == {(each.uid, each.gid, each.uname, each.gname) for each in found.values()}
    (tmp_path / "Dockerfile.dockerignore").write_text("a\nd\n")
    assert {"b.md", "node_modules/x", "Dockerfile.dockerignore"} < set(names_of(tmp_path))
    assert "a" not in names_of(tmp_path)


def test_without_exceptions_an_ignored_directory_is_not_even_read(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    (tmp_path / ".dockerignore").write_text("secret\n")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/x").write_text("x")
    assert {"Dockerfile", ".dockerignore"} == set(names_of(tmp_path))


_NAMES = st.sampled_from(["a", "b", "c", "a/b", "a/c", "b/a", "a/b/c", "./a", "c/"])
_TARGETS = st.sampled_from(["a", "../a", "/a/b", "b/..", ".", "/", "c", "../../b", "nowhere"])
_KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
_NUMBERS = st.integers(0, 2**33)
_PATHS = st.sampled_from(["", "a", "b", "c", "a/b", "a/b/c", "c/a", "b/../a", "../a", "/b", "a/b/../../c", "c/b/a"])


@given(st.lists(st.tuples(_NAMES, _KINDS, _TARGETS), max_size=6), st.lists(_PATHS, min_size=1, max_size=5))
@settings(max_examples=120, deadline=None)
def test_a_tree_in_memory_is_the_tree_on_the_disk(tmp_path_factory, entries, paths):
    """What a context says of a path before its files are on the disk is what it says afterwards."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind, target in entries:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755
            member.linkname = target if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(member)
    stream.seek(0)
    directory = tmp_path_factory.mktemp("context")
    try:
        context = receive(stream, directory, extracted)
    except InvalidParameter:
        return  # a hard link to nothing, a file where a directory should be
    try:
        before = [_seen(context, path) for path in paths]
        context.materialize()
        assert before == [_seen(context, path) for path in paths]
        assert before == [_seen(Tree(context.root), path) for path in paths]
    finally:
        context.close()


@given(
    st.lists(
        st.tuples(_NAMES, st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE]), _TARGETS, _NUMBERS),
        max_size=6,
        unique_by=lambda entry: entry[0].strip("./"),
    ),
    st.sampled_from([None, (5, 6)]),
)
@settings(max_examples=60, deadline=None)
def test_files_copied_from_the_archive_are_those_copied_from_the_disk(tmp_path_factory, entries, owner):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind, target, number in entries:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.gid, member.mtime = kind, number % 0o10000, 3, 4, number
            member.linkname = target if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            member.pax_headers = {"SCHILY.xattr.user.a": "v"} if kind == tarfile.REGTYPE else {}
            content = name.encode() * (number % 3000)
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))
    stream.seek(0)
    directory = tmp_path_factory.mktemp("context")
    try:
        context = receive(stream, directory, extracted)
    except InvalidParameter:
        return
    try:
        first = _copied(context, directory / "first", owner)
        context.materialize()
        second = _copied(context, directory / "second", owner)
        implied = {name for name, *_ in first if name not in {entry[0].strip("./") for entry in entries}}
        assert [_timeless(one, implied) for one in first] == [_timeless(one, implied) for one in second]
    finally:
        context.close()


def _copied(context, target, owner):
    """The content of a context, copied upon a tree that has something already: each name with what is in its inode."""
    target.mkdir()
    (target / "a").mkdir()
    (target / "a/kept").write_text("kept")
    (target / "c").write_text("file")
    place = os.open(target, os.O_RDONLY)
    try:
        context.copy_content("", place, Dress(owner))
    finally:
        os.close(place)
    return sorted(_inode(target, path) for path in target.rglob("*") if path.name != "kept")


def _inode(target, path):
    status = path.lstat()
    content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
    attribute = os.getxattr(path, "user.a") if path.is_file() and not path.is_symlink() and os.listxattr(path) else b""
    name = str(path.relative_to(target))
    return name, str(content), attribute, status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime)


def _timeless(inode, implied):
    """Without the time, where it is that of a directory made on the way."""
    return inode[:-1] if inode[0] in implied else inode


def _seen(tree, path):
    try:
        found = tree.resolve(path), tree.status(path).st_mode
    except OSError as error:
        return error.errno
    try:
        beneath = [(name, status.st_mode) for name, status in tree.walk(path)]
    except NotADirectoryError:
        beneath = None
    return found, beneath


def test_files_are_on_the_disk_only_when_they_are_needed(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("Dockerfile", "a"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    stream.seek(0)
    context = receive(stream, tmp_path, extracted)
    try:
        assert ("Dockerfile", b"x") == context.dockerfile("Dockerfile")
        context.digest("a")
        assert [] == os.listdir(tmp_path / "context")
        with context.opened("a", os.O_RDONLY) as descriptor:
            assert b"x" == os.read(descriptor, 10)
    finally:
        context.close()


def test_a_context_that_is_too_large(tmp_path):
    with pytest.raises(InvalidParameter, match="the build context is larger than 1000 bytes"):
        receive(io.BytesIO(bytes(5000)), tmp_path, extracted, limit=1000)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        elsewhere = {"/to-a-file": "file:///etc/passwd", "/to-ftp": "ftp://127.0.0.1:1/x"}.get(self.path)
        if elsewhere is not None:
            self.send_response(302)
            self.send_header("Location", elsewhere)
            self.end_headers()
            return
        if self.path == "/gone":
            self.send_error(404)
            return
        body = b"content"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
        if self.path == "/named":
            self.send_header("Content-Disposition", 'attachment; filename="../real name"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def web():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_is_fetched(web, tmp_path):
    found = fetch(f"{web}/dir/some%20file?x=1", tmp_path / "one")
    assert ("some file", b"content") == (found.name, found.path.read_bytes())
    assert (1_700_000_000, 0o600) == (found.path.stat().st_mtime, found.path.stat().st_mode & 0o777)
    assert "real name" == fetch(f"{web}/named", tmp_path / "two").name
    assert "" == fetch(f"{web}/", tmp_path / "three").name


def test_what_is_fetched_is_checked(web, tmp_path):
    digest = hashlib.sha256(b"content").hexdigest()
    fetch(f"{web}/x", tmp_path / "right", f"sha256:{digest}")
    with pytest.raises(InvalidParameter, match=f"digest mismatch sha256:{digest}: sha256:0000"):
        fetch(f"{web}/x", tmp_path / "wrong", "sha256:0000")
    with pytest.raises(InvalidParameter, match="invalid checksum digest format: md5:1"):
        fetch(f"{web}/x", tmp_path / "other", "md5:1")
    with pytest.raises(EngineError, match="is larger than 3 bytes"):
        fetch(f"{web}/x", tmp_path / "large", limit=3)
    with pytest.raises(EngineError, match="with status 404 Not Found"):
        fetch(f"{web}/gone", tmp_path / "gone")
    with pytest.raises(EngineError, match="with status 302 Found"):
        fetch(f"{web}/to-a-file", tmp_path / "file")
    with pytest.raises(EngineError, match="redirected to ftp://"):
        fetch(f"{web}/to-ftp", tmp_path / "ftp")


def test_an_added_address_is_not_unpacked_and_cached_by_content(workshop, web):
    dockerfile = f"FROM bb\nADD {web}/x /d/\nADD {web}/named /e/\n"
    first = workshop.build(dockerfile)
    found = workshop.files(first.image)
    assert (0o600, 0, 0, "content") == found["d/x"] == found["e/real name"]
    assert [False, True, True] == workshop.build(dockerfile).cached
    assert "cannot determine filename for source" in str(workshop.build(f"FROM bb\nADD {web}/ /d/\n").failure)


def test_what_is_an_address():
    assert [True, True, False, False] == [is_address(name) for name in ("http://x", "https://x/y", "ftp://x", "a/b")]
    assert [True, True, True, False] == [
        is_git(name) for name in ("git@h:a/b", "https://h/a.git#main", "git://h/a", "https://h/a.tar")
    ]


@pytest.mark.parametrize("address", ["http://[::1/", "http://\u2603/", f"http://{'a' * 300}/", "http://host:port/"])
def test_an_address_that_is_none(address, tmp_path):
    with pytest.raises(EngineError, match=r"^(parse|Get) "):
        fetch(address, tmp_path / "file")


def header(kind, size, name=b"x"):
    """A header as no writer of archives would make it."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:136] = b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size
    block[136:157] = b"%011o\0" % 0 + b" " * 8 + kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_an_extended_header_that_would_fill_the_memory(tmp_path):
    size = 256 << 20
    archive = io.BytesIO()
    with gzip.GzipFile(fileobj=archive, mode="wb", compresslevel=1) as compressed:
        compressed.write(header(b"x", size))
        for _ in range(size >> 20):
            compressed.write(bytes(1 << 20))
        compressed.write(header(b"0", 0) + bytes(1024))
    archive.seek(0)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidParameter, match="too long"):
            receive(archive, tmp_path, extracted)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("on_the_disk", [False, True])
def test_directories_nested_too_deeply_are_refused(tmp_path, on_the_disk):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for depth in (290, 1500):
            tar.addfile(tarfile.TarInfo("/".join([f"d{depth}", *["d"] * depth, "file"])))
    archive.seek(0)
    context = receive(archive, tmp_path, extracted)
    if on_the_disk:
        context.materialize()
    (tmp_path / "out").mkdir()
    root = os.open(tmp_path / "out", os.O_RDONLY)
    try:
        (fine,) = find_sources(context, "d290")
        copy_into(Tree(root), fine, "/fine", None, None)
        assert (tmp_path / "out/fine" / "/".join(["d"] * 290) / "file").is_file()
        with pytest.raises(InvalidParameter, match="nested more than 300 deep"):
            find_sources(context, "d1500")
        with pytest.raises(InvalidParameter, match="nested more than 300 deep"):
            copy_into(Tree(root), CopySource(context, "d1500", ""), "/deep", None, None)
    finally:
        os.close(root)
        context.close()
        remove_tree(tmp_path / "out")
        remove_tree(tmp_path / "context")
