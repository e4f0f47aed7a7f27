"""The build context: the files that the client sends, on disk for as long as the build lasts.

And the other side of it: `pack`, which makes a context of a directory as `docker build` does.
"""

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from real_engine.errors import EngineError, InvalidParameter
from real_engine.images.build.archive_tree import ArchiveCopier, ArchiveTree, Doubtful
from real_engine.images.build.copier import Dress
from real_engine.images.build.copying import FileSource
from real_engine.images.build.patterns import IGNORE_FILE, IgnorePatterns, read_ignore_file
from real_engine.images.build.tar_sums import member_path, sum_of_file, sum_of_member
from real_engine.images.compression import Decompressed
from real_engine.images.tar_reader import TarReader
from real_engine.images.trees import remove_tree

LARGEST_DOCKERFILE = 16 << 20  # bytes
LARGEST_IGNORE_FILE = 1 << 20
_CHUNK = 1 << 20
_LARGEST_PIECE = 2 * LARGEST_DOCKERFILE  # bytes that Python's reader of archives may take into memory at once
_NO_FILES = (b"g", b"V")  # records for all that follow, a volume's label

Extract = Callable[[BinaryIO, int], None]
"""Puts the content of a tar beneath an open directory, safely."""


class _ArchiveFile(io.BufferedReader):
    """An archive for Python's reader, which takes an extended header into memory whole, however long it says it is."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1, /) -> bytes:
        """As a file's, but for a size that only an archive can ask for that was made to fill the memory.

        Raises:
            tarfile.ReadError: that is asked for.
        """
        if size is None or not 0 <= size <= _LARGEST_PIECE:
            raise tarfile.ReadError(f"an extended header of {size} bytes is too long")
        return super().read(size)


class BuildContext(FileSource):
    """The context at `directory`: the files in the tar at `archive`, whose headers its digests are made of.

    COPY takes them from the archive itself, where that leaves no doubt what they are. They are extracted by `extract`
    only when something else needs them on the disk. Without an archive, the files are in the directory already.
    """

    is_context = True

    def __init__(self, directory: Path, archive: Path | None, extract: Extract | None = None) -> None:
        self.directory = directory
        super().__init__(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        self._archive = archive
        self._extract = extract
        self._sums: dict[str, str] = {}
        self._file: _ArchiveFile | None = None
        self._tar: tarfile.TarFile | None = None
        self._members: dict[str, tarfile.TarInfo] = {}
        self._tree: ArchiveTree | None = None
        self._removed: list[str] = []
        if archive is not None:
            try:
                self._file = _ArchiveFile(archive)
                self._tar = tarfile.open(fileobj=self._file, mode="r:", errors="surrogateescape")  # noqa: SIM115 - see close
                self._read_headers(archive)
            except tarfile.TarError as error:
                self.close()
                raise InvalidParameter(f"archive/tar: invalid tar header: {error}") from error
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close the directory and the archive."""
        os.close(self.root)
        if self._file is not None:
            self._file.close()

    def materialize(self) -> None:
        """See that the files are on the disk.

        Raises:
            InvalidParameter: the archive leads outside.
            OSError: no room.
        """
        extract, self._extract = self._extract, None
        if extract is None or self._archive is None:
            return
        with self._archive.open("rb") as file:
            extract(file, self.root)
        self._tree = None
        for path in self._removed:
            self._remove(path)

    @contextmanager
    def opened(self, path: str, flags: int = os.O_PATH) -> Iterator[int]:
        """A descriptor of what `path` leads to, on the disk."""
        self.materialize()
        with super().opened(path, flags) as descriptor:
            yield descriptor

    def status(self, path: str) -> os.stat_result:
        """What kind of file `path` leads to."""
        return super().status(path) if self._tree is None else self._tree.status(path)

    def resolve(self, path: str) -> str:
        """Where `path` leads to, as a path without links."""
        return super().resolve(path) if self._tree is None else self._tree.resolve(path)

    def walk(self, path: str = "", depth: int | None = None) -> Iterator[tuple[str, os.stat_result]]:
        """All beneath the directory `path` to that depth."""
        return super().walk(path, depth) if self._tree is None else self._tree.walk(path, depth)

    def copy_content(self, path: str, place: int, dress: Dress) -> None:
        """Copy what is in a directory, from the archive if it isn't extracted."""
        if self._tree is None:
            super().copy_content(path, place, dress)
        else:
            ArchiveCopier(self._archive_descriptor(), dress).content(self._tree.node(path), place)

    def copy_file(self, path: str, place: int, name: str, dress: Dress) -> None:
        """Copy a file, from the archive if it isn't extracted."""
        if self._tree is None:
            super().copy_file(path, place, name, dress)
        else:
            ArchiveCopier(self._archive_descriptor(), dress).entry(self._tree.node(path), place, name)

    @contextmanager
    def reading(self, path: str) -> Iterator[BinaryIO]:
        """A regular file, to be read."""
        if self._tree is None:
            with super().reading(path) as file:
                yield file
        else:
            with self._member(path) as content:
                yield content

    def digest(self, path: str) -> str:
        """The digest of a file or directory entry; one that came in no header of its own is known by its name."""
        found = self._sums.get(path)
        if found is None:
            found = self._sums[path] = self._digest(path)
        return found

    def dockerfile(self, name: str) -> tuple[str, bytes]:
        """The Dockerfile's name as found (`dockerfile` will do for `Dockerfile`), and its content.

        If .dockerignore excludes it, or itself, they are taken out of the context now.

        Raises:
            EngineError: there is none.
        """
        content = self._read(name, LARGEST_DOCKERFILE)
        if content is None and name == "Dockerfile":
            content = self._read("dockerfile", LARGEST_DOCKERFILE)
            name = "dockerfile" if content is not None else name
        if content is None:
            raise EngineError(f"Cannot locate specified Dockerfile: {name}")
        ignored = self._read(IGNORE_FILE, LARGEST_IGNORE_FILE)
        if ignored is not None:
            patterns = IgnorePatterns(read_ignore_file(ignored.decode("utf-8", "surrogateescape")))
            for path in (IGNORE_FILE, name):
                if patterns.excludes(path):
                    self._remove(path)
        return name, content

    def _read_headers(self, archive: Path) -> None:
        """Read all headers, with Python's reader for the digests, and with a strict one beside it.

        Raises:
            InvalidParameter: the archive is damaged.
        """
        assert self._tar is not None
        tree: ArchiveTree | None = ArchiveTree()
        members = iter(self._tar)
        with archive.open("rb") as file:
            for entry in TarReader(file):
                if entry.kind in _NO_FILES:
                    tree = None
                    continue
                member = next(members, None)
                if member is None:
                    tree = None
                    continue
                self._members.setdefault(member_path(member.name), member)
                if tree is not None:
                    try:
                        tree.add(entry, member)
                    except Doubtful:
                        tree = None
        for member in members:
            self._members.setdefault(member_path(member.name), member)
        self._tree = tree
        if tree is None:
            self.materialize()

    def _read(self, path: str, limit: int) -> bytes | None:
        try:
            if self._tree is not None and self._tar is not None:
                with self._member(path) as content:
                    return _bounded(content, path, limit)
            with self.opened(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise EngineError(f"cannot read {path}: it is no regular file")
                with os.fdopen(os.dup(descriptor), "rb") as file:
                    return _bounded(file, path, limit)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _member(self, path: str) -> BinaryIO:
        """A regular file's content in the archive."""
        assert self._tar is not None
        member = self._members.get(self.resolve(path))
        content = None if member is None or not member.isreg() else self._tar.extractfile(member)
        if content is None:
            raise EngineError(f"cannot read {path}: it is no regular file")
        return cast("BinaryIO", content)

    def _archive_descriptor(self) -> int:
        assert self._file is not None
        return self._file.fileno()

    def _remove(self, path: str) -> None:
        if self._tree is not None:
            self._tree.remove(path)
            self._removed.append(path)
            return
        parent, name = os.path.split(self.resolve(path))
        with self.opened(parent, os.O_RDONLY | os.O_DIRECTORY) as directory:
            remove_tree(name, directory)

    def _digest(self, path: str) -> str:
        if self._tar is None:
            parent, name = os.path.split(path)
            with self.opened(parent, os.O_RDONLY | os.O_DIRECTORY) as directory:
                return sum_of_file(directory, name, path)
        found = self._members.get(path)
        if found is None:
            return path
        name = found.name + "/" if found.isdir() else found.name
        return sum_of_member(found, name, self._tar.extractfile(found) if found.isreg() else None)


class ImageFiles(FileSource):
    """The files of an image, whose root is open."""

    def __init__(self, root: int) -> None:
        super().__init__(root)
        self._sums: dict[str, str] = {}

    def digest(self, path: str) -> str:
        """The digest of a file as it is on disk."""
        if path not in self._sums:
            parent, name = os.path.split(path)
            with self.opened(parent, os.O_RDONLY | os.O_DIRECTORY) as directory:
                self._sums[path] = sum_of_file(directory, name, path) if name else path
        return self._sums[path]


class GivenFiles(FileSource):
    """A directory with files that were fetched, or that stand in the Dockerfile itself; each digest is of the file."""

    def digest(self, path: str) -> str:
        """The digest of a file as it is on disk."""
        with self.opened("", os.O_RDONLY | os.O_DIRECTORY) as directory:
            return sum_of_file(directory, path, path)


def receive(stream: BinaryIO, directory: Path, extract: Extract, limit: int | None = None) -> BuildContext:
    """The context that `stream` gives: a tar, plain or compressed. `directory` (empty) gets the files and the archive.

    Raises:
        InvalidParameter: it is no tar, damaged, or longer than `limit` bytes.
    """
    archive = directory / "context.tar"
    size = 0
    plain = io.BufferedReader(Decompressed(stream), _CHUNK)
    with archive.open("xb") as file:
        while data := plain.read1(_CHUNK):
            size += len(data)
            if limit is not None and size > limit:
                raise InvalidParameter(f"the build context is larger than {limit} bytes")
            file.write(data)
    files = directory / "context"
    files.mkdir(mode=0o755)
    return BuildContext(files, archive, extract)


def of_dockerfile(content: bytes, directory: Path) -> BuildContext:
    """A context with a Dockerfile and nothing else."""
    files = directory / "context"
    files.mkdir(mode=0o755)
    (files / "Dockerfile").write_bytes(content)
    return BuildContext(files, None)


@contextmanager
def pack(directory: Path, dockerfile: str = "Dockerfile") -> Iterator[BinaryIO]:
    """A build context made of a directory: a tar in an unnamed file, read from its beginning.

    `.dockerignore` says what stays out, or `<dockerfile>.dockerignore` where that exists. The Dockerfile and the ignore
    file themselves always go along. Owners become root, as in Docker's own command line.

    Raises:
        OSError: a file can't be read.
    """
    import tempfile

    ignore = next((name for name in (f"{dockerfile}.dockerignore", IGNORE_FILE) if (directory / name).is_file()), "")
    lines = read_ignore_file((directory / ignore).read_text("utf-8", "surrogateescape")) if ignore else []
    patterns = IgnorePatterns(lines)
    always = {os.path.normpath(dockerfile), ignore}
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
            for parent, directories, names in os.walk(directory):
                below = os.path.relpath(parent, directory)
                directories.sort(key=os.fsencode)
                descend = []
                for name in sorted([*directories, *names], key=os.fsencode):
                    path = os.path.normpath(os.path.join(below, name))
                    is_directory = name in directories and not os.path.islink(os.path.join(parent, name))
                    needed = any(path == kept or kept.startswith(path + "/") for kept in always)
                    excluded = patterns.excludes(path) and not needed
                    if is_directory and (not excluded or patterns.has_exceptions):
                        descend.append(name)
                    if not excluded:
                        _add(archive, os.path.join(parent, name), path)
                directories[:] = descend
        file.seek(0)
        yield file


def _bounded(file: IO[bytes], path: str, limit: int) -> bytes:
    content = file.read(limit + 1)
    if len(content) > limit:
        raise InvalidParameter(f"{path} is longer than {limit} bytes")
    return content


def _add(archive: tarfile.TarFile, source: str, path: str) -> None:
    member = archive.gettarinfo(source, path)
    if member is None:
        return  # a socket
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    if member.isreg():
        with open(source, "rb") as content:
            archive.addfile(member, content)
    else:
        archive.addfile(member)
