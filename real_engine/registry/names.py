"""The grammar of repository names, tags and digests (OCI distribution-spec v1.1, "Pulling manifests").

What these functions let through is safe as a path beneath a directory: no component is empty, begins with a dot or an
underscore, or holds anything but small letters, digits and separators.
"""

import hashlib
import re
from typing import Any, NamedTuple

NAME_LENGTH = 255
"""Characters that a repository's name may have, as the hosts and clients of today allow it."""

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HEX_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[a-f0-9]+")


class Digest(NamedTuple):
    """What a content is called by: an algorithm, and its result in hexadecimal digits."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    def hasher(self) -> Any:
        """A new hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def matches(self, content: bytes) -> bool:
        """Whether `content` is what this digest stands for."""
        return bool(hashlib.new(self.algorithm, content).hexdigest() == self.hex)


def is_name(text: str) -> bool:
    """Whether `text` may name a repository."""
    return len(text) <= NAME_LENGTH and _NAME.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether `text` may be a tag."""
    return _TAG.fullmatch(text) is not None


def parse_digest(text: object) -> Digest | None:
    """`text` as a digest of an algorithm that is checked here (sha256, sha512), or None."""
    if not isinstance(text, str):
        return None
    algorithm, _, digits = text.partition(":")
    if _HEX_LENGTHS.get(algorithm) != len(digits) or not _HEX.fullmatch(digits):
        return None
    return Digest(algorithm, digits)


def sha256(content: bytes) -> Digest:
    """The digest by which `content` is stored unless somebody asked for another."""
    return Digest("sha256", hashlib.sha256(content).hexdigest())
