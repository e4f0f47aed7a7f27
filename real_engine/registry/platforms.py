"""Choosing among the images of an index: operating system, processor architecture, and its variant.

Names are Go's (OCI image-spec v1.1 image-index.md); the order of preference is containerd's (platforms package).
"""

from __future__ import annotations

import platform as machine
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from real_engine.errors import InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from real_engine.registry.manifests import Descriptor

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
}
_SYSTEMS = ("linux", "windows", "darwin", "freebsd")
_PART = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def of_this_machine(cls) -> Platform:
        """What runs here."""
        return cls("linux", *_architecture(machine.machine()))

    @classmethod
    def parse(cls, text: str) -> Platform:
        """`OS`, `ARCHITECTURE`, `OS/ARCHITECTURE` or `OS/ARCHITECTURE/VARIANT`; what is left out is this machine's.

        Raises:
            InvalidParameter: it is none.
        """
        here = cls.of_this_machine()
        parts = text.split("/")
        for part in parts:
            if not _PART.fullmatch(part):
                raise InvalidParameter(
                    f'"{text}": "{part}" is an invalid component of "{text}": platform specifier component must match '
                    '"^[A-Za-z0-9_-]+$": invalid argument'
                )
        parts = [part.lower() for part in parts]
        if len(parts) == 1:
            if parts[0] in _SYSTEMS:
                return cls(parts[0], here.architecture, here.variant)
            if parts[0] in _ARCHITECTURES or parts[0] in _KNOWN:
                return cls(here.os, *_architecture(parts[0]))
            raise InvalidParameter(f'"{text}": unknown operating system or architecture: invalid argument')
        if len(parts) == 2:
            return cls(parts[0], *_architecture(parts[1]))
        if len(parts) == 3:
            return cls(parts[0], _architecture(parts[1])[0], parts[2])
        raise InvalidParameter(f'"{text}": cannot parse platform specifier: invalid argument')

    def choose(self, descriptors: Sequence[Descriptor]) -> Descriptor | None:
        """The image of an index that suits best, or None if none does."""
        ranked = []
        for position, descriptor in enumerate(descriptors):
            rank = self.rank(
                str(descriptor.platform.get("os", "")),
                str(descriptor.platform.get("architecture", "")),
                str(descriptor.platform.get("variant", "")),
            )
            if rank is not None:
                ranked.append((rank, position, descriptor))
        return min(ranked)[2] if ranked else None

    def rank(self, os: str, architecture: str, variant: str) -> int | None:
        """How far an image for another platform is from this one: 0 for the same, None if it can't run here."""
        if (os, _architecture(architecture)[0]) != (self.os, self.architecture):
            return None
        wanted, given = (self._number(text) for text in (self.variant, variant))
        # A newer processor runs what was made for an older one, and not the other way round.
        return wanted - given if given <= wanted else None

    def _number(self, variant: str) -> int:
        """7 for v7; what an architecture means where no variant is named."""
        digits = variant.removeprefix("v").partition(".")[0]
        if digits.isdecimal():
            return int(digits)
        return {"arm": 7, "arm64": 8, "amd64": 1}.get(self.architecture, 0)


_KNOWN = ("amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64", "mips64le", "loong64")


def _architecture(name: str) -> tuple[str, str]:
    """Go's name of an architecture, and its variant, for whatever name it was given."""
    return _ARCHITECTURES.get(name.lower(), (name.lower(), ""))
