"""The built-in image `busybox`, made from the host's own static busybox, so that nothing need be downloaded."""

import contextlib
import hashlib
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_engine.errors import EngineError

NAME = "busybox"
CANDIDATES = tuple(Path(directory) / "busybox" for directory in ("/bin", "/usr/bin", "/usr/local/bin", "/sbin"))

RECIPE_LABEL = "onggi.busybox"
"""The label of the built-in image that holds its `recipe_digest`."""

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # Go's words, which images use

_RECIPE = b"1"  # to be raised when the files below change: an image made by an older recipe isn't used again
_DIRECTORIES = ("dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp", "usr", "var", "var/log")
_MODES = {"root": 0o700, "tmp": 0o1777}
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "www-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n",
    "etc/hostname": "",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "etc/resolv.conf": "",
    "etc/nsswitch.conf": "hosts: files dns\n",
}

# Of the ELF header (elf(5)): the program headers, and the type of the one that names a dynamic linker.
_ELF64_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PT_INTERP = 3


@dataclass(frozen=True, slots=True)
class Image:
    """What a container can be started from: its layers, the lowest first, and what its maker set for it."""

    name: str
    layers: tuple[Path, ...]
    environment: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ("/bin/sh",)
    user: str = "0"
    workdir: str = "/"


def builtin_image(root: Path, candidates: Sequence[Path] = CANDIDATES) -> Image:
    """The image `busybox`, assembled under `root`/images the first time and found there afterwards.

    The directory's name holds a digest of the binary and the recipe, and appears only when it is complete, so several
    processes may ask at once, and an interrupted one leaves no half of an image.

    Raises:
        EngineError: there is no static busybox on this machine, or no room under `root`.
    """
    binary = find_busybox(candidates)
    images = root.absolute() / "images"
    try:
        content = binary.read_bytes()
        digest = recipe_digest(content)
        directory = images / f"{NAME}-{digest[:16]}"
        if not directory.exists():
            images.mkdir(parents=True, exist_ok=True, mode=0o700)
            _assemble(binary, content, directory)
    except OSError as error:
        raise EngineError(f"cannot make the image {NAME} in {images}: {error}") from error
    return Image(NAME, (directory,))


def is_static_elf(path: Path) -> bool:
    """Whether the file is a 64-bit ELF executable without a dynamic linker.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        header = file.read(_ELF64_HEADER.size)
        if len(header) < _ELF64_HEADER.size or not header.startswith(b"\x7fELF\x02\x01"):
            return False
        fields = _ELF64_HEADER.unpack(header)
        offset, size, count = fields[5], fields[9], fields[10]
        file.seek(offset)
        table = file.read(size * count)
    if size < struct.calcsize("<I"):
        return False
    types = [struct.unpack_from("<I", table, number * size)[0] for number in range(len(table) // size)]
    return bool(types) and _PT_INTERP not in types


def find_busybox(candidates: Sequence[Path] = CANDIDATES) -> Path:
    """The first candidate that is a static executable: alone in a container or a guest, it has no libraries.

    Raises:
        EngineError: there is none.
    """
    dynamic = []
    for path in candidates:
        if os.access(path, os.X_OK):
            if is_static_elf(path):
                return path
            dynamic.append(path)
    if dynamic:
        raise EngineError(
            f"{dynamic[0]} is not statically linked, so it can't run alone: apt-get install busybox-static"
        )
    raise EngineError("no busybox on this machine to make the built-in image from: apt-get install busybox-static")


def recipe_digest(content: bytes) -> str:
    """What tells one built-in image from another: the busybox binary and the recipe for the files around it."""
    return hashlib.sha256(content + _RECIPE).hexdigest()


@contextlib.contextmanager
def assembled(root: Path, candidates: Sequence[Path] = CANDIDATES) -> Iterator[int]:
    """The image's root directory, open, as a temporary tree under `root`/tmp.

    Raises:
        EngineError: there is no static busybox on this machine.
        OSError: no room under `root`.
    """
    binary = find_busybox(candidates)
    temporary = root / "tmp"
    temporary.mkdir(parents=True, exist_ok=True, mode=0o700)
    building = Path(tempfile.mkdtemp(dir=temporary, prefix=f".{NAME}-"))
    try:
        _fill(building, binary, binary.read_bytes())
        descriptor = os.open(building, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def image_configuration(content: bytes, diff_id: str, comment: str) -> dict[str, Any]:
    """The configuration of the built-in image (OCI image-spec v1.1 config.md): no time, so that its id is the same."""
    from real_engine.images.config_changes import complete  # with the builder's parser, which `engine run` doesn't need

    created = "1970-01-01T00:00:00Z"
    return {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "comment": comment,
        "config": complete({"Env": [_PATH], "Cmd": ["sh"], "Labels": {RECIPE_LABEL: recipe_digest(content)}}),
        "created": created,
        "history": [
            {"created": created, "created_by": "/bin/sh -c #(nop) ADD busybox in / "},
            {"created": created, "created_by": '/bin/sh -c #(nop)  CMD ["sh"]', "empty_layer": True},
        ],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }


def _assemble(binary: Path, content: bytes, directory: Path) -> None:
    """Make the root file system beside `directory`, and put it there in one move."""
    building = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".building-"))
    try:
        _fill(building, binary, content)
        try:
            building.rename(directory)
        except OSError:
            if not directory.is_dir():
                raise
            # Another process was first, and its image is the same as ours.
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _fill(building: Path, binary: Path, content: bytes) -> None:
    """Make the root file system in the empty directory `building`."""
    listed = subprocess.run([binary, "--list-full"], capture_output=True, text=True, check=True).stdout
    for name in _DIRECTORIES:
        _make_directory(building, name)
    for name, text in _FILES.items():
        _write(building / name, text.encode(), 0o644)
    _make_directory(building, "bin")
    _write(building / "bin/busybox", content, 0o755)
    for applet in listed.split():
        link = building / applet
        if link.name != "busybox":
            _make_directory(building, os.path.dirname(applet))
            link.symlink_to(os.path.relpath("bin/busybox", os.path.dirname(applet)))
    building.chmod(0o755)


def _make_directory(root: Path, name: str) -> None:
    path = root / name
    path.mkdir(parents=True, exist_ok=True)
    for made in (path, *path.parents):
        if made == root:
            break
        made.chmod(_MODES.get(str(made.relative_to(root)), 0o755))  # whatever our umask


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that it is on the disk before the image's final name is."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(mode)
