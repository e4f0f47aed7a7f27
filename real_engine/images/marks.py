"""How a layer says that something of the layers below is gone: in a tar archive, and on the disk for overlayfs.

In an archive an empty file `.wh.NAME` stands for a NAME that is gone, and `.wh..wh..opq` for all that the directory had
below (OCI image-spec v1.1 layer.md, "Whiteouts"). On the disk the first is a character device 0:0, the second an
attribute of the directory (the kernel's Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

WHITEOUT_PREFIX = ".wh."
OPAQUE_WHITEOUT = ".wh..wh..opq"
AUFS_PREFIX = ".wh..wh."
"""Names that the aufs file system once used for itself; but for the opaque mark they say nothing about the layer."""

_INITIAL_USER_NAMESPACE = "0 0 4294967295"


@dataclass(frozen=True, slots=True)
class Marks:
    """The attributes that overlayfs looks for: `trusted.overlay.…`, or `user.overlay.…` when mounted with userxattr."""

    prefix: str = "trusted.overlay."

    @classmethod
    def for_this_process(cls) -> Marks:
        """Those that this process may set: only root of the initial user namespace may set `trusted` ones."""
        return cls() if may_be_root() else cls("user.overlay.")

    @property
    def opaque(self) -> str:
        """The attribute of a directory that hides what the layers below have in it, when it is `y`."""
        return f"{self.prefix}opaque"

    def is_opaque(self, path: str | int) -> bool:
        """Whether the directory at a path, or open, hides what is below."""
        try:
            value = os.getxattr(path, self.opaque, follow_symlinks=not isinstance(path, str))
        except OSError:
            return False
        return value == b"y"

    def is_foreign(self, attribute: str) -> bool:
        """Whether an attribute is overlayfs's own, and so none of the file's."""
        return attribute.startswith(("trusted.overlay.", "user.overlay."))


def may_be_root() -> bool:
    """Whether this process is root of the initial user namespace."""
    if os.geteuid():
        return False
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return " ".join(file.read().split()) == _INITIAL_USER_NAMESPACE
    except OSError:
        return True


def is_whiteout(info: os.stat_result) -> bool:
    """Whether a file is overlayfs's sign that its name is gone."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
