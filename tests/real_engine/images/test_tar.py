"""Tar archives: what is written is read the same, by others too, and what is damaged is an error."""

import io
import os
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.images import tar_writer
from real_engine.images.tar_reader import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
    InvalidArchive,
    TarReader,
)

names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs",)) | st.sampled_from("\udc80\udcff"),
    min_size=1,
    max_size=60,
).filter(lambda name: name not in (".", "..") and b"\0" not in os.fsencode(name))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)


@st.composite
def entries(draw):
    kind = draw(st.sampled_from([REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO]))
    data = draw(st.binary(max_size=1500)) if kind == REGULAR else b""
    name = draw(paths)
    return (
        Entry(
            name + "/" if kind == DIRECTORY else name,
            kind,
            draw(st.integers(0, 0o7777)),
            draw(st.integers(0, 2**32 - 2)),
            draw(st.integers(0, 2**32 - 2)),
            len(data),
            draw(st.integers(-(10**18), 10**19)),
            draw(paths) if kind in (HARD_LINK, SYMLINK) else "",
            draw(st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1)))
            if kind in (CHARACTER, BLOCK_DEVICE)
            else (0, 0),
            draw(st.dictionaries(st.sampled_from(["user.a", "user.ü", "security.capability"]), st.binary(max_size=30))),
        ),
        data,
    )


def written(items):
    parts = []
    for entry, data in items:
        parts += [tar_writer.header(entry), data, tar_writer.padding(len(data))]
    return b"".join([*parts, tar_writer.END])


def read(data, chunk=None):
    source = io.BytesIO(data)
    if chunk:
        source = Dribble(source, chunk)
    reader = TarReader(source)
    return [(entry, b"".join(piece for _, piece in reader.pieces())) for entry in reader]


class Dribble:
    def __init__(self, file, size):
        self._file = file
        self._size = size

    def read(self, size=-1, /):
        return self._file.read(self._size)


@settings(max_examples=80)
@given(st.lists(entries(), max_size=5), st.sampled_from([None, 1, 511, 513, 4096]))
def test_what_is_written_is_read_the_same(items, chunk):
    archive = written(items)
    assert 0 == len(archive) % 512
    assert items == read(archive, chunk)


@settings(max_examples=40)
@given(st.lists(entries(), min_size=1, max_size=4))
def test_pythons_reader_agrees(items):
    with tarfile.open(fileobj=io.BytesIO(written(items)), errors="surrogateescape") as archive:
        found = archive.getmembers()
    assert [entry.name.rstrip("/") for entry, _ in items] == [member.name for member in found]
    assert [entry.kind for entry, _ in items] == [member.type for member in found]
    assert [entry.link for entry, _ in items] == [member.linkname for member in found]
    assert [(entry.mode, entry.uid, entry.gid, entry.size) for entry, _ in items] == [
        (member.mode, member.uid, member.gid, member.size) for member in found
    ]


@settings(max_examples=40)
@given(entries(), st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_pythons_writer_is_understood_in_every_form(item, form):
    entry, data = item
    if form == tarfile.USTAR_FORMAT and (len(os.fsencode(entry.name)) > 90 or len(os.fsencode(entry.link)) > 90):
        return
    member = tarfile.TarInfo(entry.name.rstrip("/"))
    member.type, member.mode, member.size, member.linkname = entry.kind, entry.mode, entry.size, entry.link
    member.uid, member.gid = entry.uid % 2**20, entry.gid % 2**20
    member.mtime = 1_700_000_000
    member.devmajor, member.devminor = entry.device
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as archive:
        try:
            archive.addfile(member, io.BytesIO(data))
        except UnicodeEncodeError:
            return  # PAX headers of Python's writer are UTF-8 alone
    ((found, content),) = read(buffer.getvalue())
    assert entry.name.rstrip("/") == found.name.rstrip("/")
    assert (entry.kind, entry.mode, entry.link, entry.device) == (found.kind, found.mode, found.link, found.device)
    assert (entry.uid % 2**20, entry.gid % 2**20, 1_700_000_000_000_000_000) == (found.uid, found.gid, found.mtime_ns)
    assert data == content


@settings(max_examples=150)
@given(st.lists(entries(), min_size=1, max_size=3), st.data())
def test_a_cut_off_archive_is_an_error(items, data):
    archive = written(items)[: -len(tar_writer.END)]
    cut = data.draw(st.integers(1, len(archive) - 1))
    try:
        found = read(archive[:cut])
    except InvalidArchive as error:
        message = str(error)
    else:
        assert 0 == cut % 512  # it ends after a whole entry, without the blocks of zeros
        assert items[: len(found)] == found
        return
    assert "unexpected EOF" == message


@settings(max_examples=200)
@given(st.lists(entries(), min_size=1, max_size=2), st.data())
def test_damage_is_an_error_and_never_a_crash(items, data):
    archive = bytearray(written(items))
    for _ in range(data.draw(st.integers(1, 3))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(archive))
    except InvalidArchive:
        return


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end():
    first, second = Entry("a"), Entry("b")
    archive = bytearray(tar_writer.header(first) + tar_writer.header(second) + tar_writer.END)
    archive[512] ^= 1
    with pytest.raises(InvalidArchive, match="invalid tar header"):
        read(bytes(archive))
    with tarfile.open(fileobj=io.BytesIO(bytes(archive))) as lenient:
        assert ["a"] == lenient.getnames()  # which is why we don't use it


def test_an_extended_header_has_a_limit():
    header = tar_writer._block(b"x", 0, 0, 0, 1 << 30, 0, b"x", b"", (0, 0))
    with pytest.raises(InvalidArchive, match="too long"):
        read(header)


@pytest.mark.parametrize(
    "record",
    [
        b"5 a=\n",
        b"99 a=b\n",
        b"x a=b\n",
        b"6 a=b\n6 a=c",
        b"-1 a=b\n",
        b"10 size=-1\n",
        b"12 mtime=x1\n",
        b"11 uid=1e9\n",
        b"7 =bc\n",
    ],
)
def test_a_damaged_record_is_an_error(record):
    header = tar_writer._block(b"x", 0, 0, 0, len(record), 0, b"x", b"", (0, 0))
    archive = header + record + tar_writer.padding(len(record)) + tar_writer.header(Entry("f")) + tar_writer.END
    try:
        ((entry, _),) = read(archive)
    except InvalidArchive:
        return
    assert record == b"5 a=\n"  # an empty value is one
    assert "f" == entry.name


def test_records_for_all_that_follow_are_passed_over():

    record = b"14 path=other\n"
    header = tar_writer._block(b"g", 0, 0, 0, len(record), 0, b"g", b"", (0, 0))
    archive = header + record + tar_writer.padding(len(record)) + tar_writer.header(Entry("f")) + tar_writer.END
    assert ["f"] == [entry.name for entry, _ in read(archive)]


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize("form", ["gnu", "oldgnu", "posix:0.0", "posix:0.1", "posix:1.0"])
@pytest.mark.parametrize("pieces", [0, 1, 3, 40])
def test_sparse_files_of_every_form(tmp_path, form, pieces):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for number in range(pieces):
            file.seek(number * 100_000 + 8192)
            file.write(bytes([number + 1]) * 5000)
        file.truncate(pieces * 100_000 + 70_000)
    form, _, version = form.partition(":")
    version_option = [f"--sparse-version={version}"] if version else []
    command = ["tar", "-C", tmp_path, f"--format={form}", "--sparse", *version_option, "-cf", "-", "sparse"]
    archive = subprocess.run(command, capture_output=True, check=True).stdout
    reader = TarReader(io.BytesIO(archive))
    entry = next(iter(reader))
    content = bytearray(entry.size)
    for offset, piece in reader.pieces():
        content[offset : offset + len(piece)] = piece
    assert "sparse" == entry.name
    assert path.read_bytes() == bytes(content)
    assert len(archive) < path.stat().st_size or pieces == 0


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_gnu_tar_is_understood_in_every_form(tmp_path, form):
    root = tmp_path / "root"
    (root / "directory").mkdir(parents=True)
    (root / "directory/file").write_bytes(b"content")
    os.link(root / "directory/file", root / "hard")
    (root / "soft").symlink_to("directory/file")
    command = ["tar", "-C", root, f"--format={form}", "--sort=name", "-cf", "-", "directory", "hard", "soft"]
    found = read(subprocess.run(command, capture_output=True, check=True).stdout)
    assert [
        ("directory/", DIRECTORY, "", b""),
        ("directory/file", REGULAR, "", b"content"),
        ("hard", HARD_LINK, "directory/file", b""),
        ("soft", SYMLINK, "directory/file", b""),
    ] == [(entry.name, entry.kind, entry.link, data) for entry, data in found]


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
def test_gnu_tar_reads_ours(tmp_path):
    entries_ = [
        (Entry("d", DIRECTORY, mode=0o755), b""),
        (Entry("d/" + "n" * 150, size=3, mode=0o640, mtime_ns=1_500_000_000_123_456_789), b"abc"),
        (Entry("ü", SYMLINK, link="d/" + "n" * 150), b""),
    ]
    subprocess.run(["tar", "-C", tmp_path, "-xf", "-"], input=written(entries_), check=True)
    assert b"abc" == (tmp_path / "ü").read_bytes()
    assert 1_500_000_000_123_456_789 == (tmp_path / "ü").stat().st_mtime_ns


def test_a_lying_sparse_map_is_refused():
    for text in (b"10,5,3,2", b"0,9", b"0,5,100,0", b"5,-1", b"1"):
        record_map = b"GNU.sparse.map=" + text
        records = b"".join(
            tar_writer._record(key, value)
            for key, value in (("GNU.sparse.map", record_map[15:]), ("GNU.sparse.size", b"20"))
        )
        header = tar_writer._block(b"x", 0, 0, 0, len(records), 0, b"x", b"", (0, 0))
        archive = header + records + tar_writer.padding(len(records))
        archive += tar_writer.header(Entry("f", size=5)) + b"12345" + tar_writer.padding(5) + tar_writer.END
        with pytest.raises(InvalidArchive):
            read(archive)


def test_headers_before_an_entry_are_bounded_together():
    # Each is below the limit; a megabyte of each costs a kilobyte of a compressed layer.
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 600_000
    record = b"600000 user.a=" + b"a" * (600_000 - 15) + b"\n"
    one = info.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % 512)
    entry = tar_writer.header(Entry("file"))
    assert ["file"] == [found.name for found in TarReader(io.BytesIO(one + entry + tar_writer.END))]
    assert ["file"] * 2 == [found.name for found in TarReader(io.BytesIO((one + entry) * 2 + tar_writer.END))]
    with pytest.raises(InvalidArchive, match="too long"):
        list(TarReader(io.BytesIO(one * 2 + entry + tar_writer.END)))
