"""References: the names of images, as Docker reads and writes them.

`busybox` is short for `docker.io/library/busybox:latest`. The grammar and the rules of normalisation are those of
distribution/reference (v2.8), which every client and registry follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from real_engine.errors import InvalidParameter

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
LONGEST_NAME = 255

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(rf"((?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)(?::({_TAG}))?(?:@({_DIGEST}))?", re.ASCII)
_ANCHORED_TAG = re.compile(_TAG, re.ASCII)
_HEX_ID = re.compile("[a-f0-9]{64}")
_ALGORITHMS = {"sha256": 64, "sha384": 96, "sha512": 128}


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository (`domain`/`path`) and, where they were given, a tag and a digest in it."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference, short or full. No tag is added: see `with_default_tag`.

        Raises:
            InvalidParameter: it is none, in the words of distribution/reference.
        """
        if _HEX_ID.fullmatch(text):
            raise InvalidParameter(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
        domain, remainder = _split_domain(text)
        name = remainder.split(":", 1)[0]
        if name != name.lower():
            raise InvalidParameter(f"invalid reference format: repository name ({name}) must be lowercase")
        full = f"{domain}/{remainder}"
        matched = _REFERENCE.fullmatch(full)
        if matched is None:
            if not text:
                raise InvalidParameter("invalid reference format")
            if _REFERENCE.fullmatch(full.lower()):
                raise InvalidParameter("invalid reference format: repository name must be lowercase")
            raise InvalidParameter("invalid reference format")
        if len(matched[1]) > LONGEST_NAME:
            raise InvalidParameter(f"repository name must not be more than {LONGEST_NAME} characters")
        digest = matched[3] or ""
        if digest:
            check_digest(digest)
        return cls(domain, matched[1][len(domain) + 1 :], matched[2] or "", digest)

    @property
    def name(self) -> str:
        """The repository in full: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as a person writes it: `busybox`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix("library/")
        # A path that would be taken for a domain when it is read again stays long.
        return short if "/" not in short and self.path.startswith("library/") else self.path

    @property
    def familiar(self) -> str:
        """The reference as a person writes it: `busybox:latest`."""
        return self.familiar_name + self._suffix

    @property
    def canonical(self) -> str:
        """The reference in full: `docker.io/library/busybox:latest`."""
        return self.name + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        """The reference with the tag `latest`, if it has neither a tag nor a digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """The same repository with another tag, and no digest.

        Raises:
            InvalidParameter: that is no tag.
        """
        if not _ANCHORED_TAG.fullmatch(tag):
            raise InvalidParameter("invalid tag format")
        return replace(self, tag=tag, digest="")

    def with_digest(self, digest: str) -> Reference:
        """The same repository with a digest, and no tag.

        Raises:
            InvalidParameter: that is no digest.
        """
        return replace(self, tag="", digest=check_digest(digest))

    def __str__(self) -> str:
        return self.familiar


def check_digest(text: str) -> str:
    """`text`, if it is a digest such as `sha256:…` of the right length.

    Raises:
        InvalidParameter: it is none (in the words of opencontainers/go-digest).
    """
    algorithm, colon, digits = text.partition(":")
    if not colon or not re.fullmatch(_DIGEST, text, re.ASCII) or digits != digits.lower():
        raise InvalidParameter("invalid checksum digest format")
    if algorithm not in _ALGORITHMS:
        raise InvalidParameter("unsupported digest algorithm")
    if len(digits) != _ALGORITHMS[algorithm]:
        raise InvalidParameter("invalid checksum digest length")
    return text


def is_sha256(text: str) -> bool:
    """Whether `text` is `sha256:` and 64 lower-case hexadecimal digits: all that we store has such a digest."""
    return text.startswith("sha256:") and _HEX_ID.fullmatch(text[7:]) is not None


def _split_domain(text: str) -> tuple[str, str]:
    """The domain and the rest (distribution/reference splitDockerDomain): a domain has a dot or colon, or is local."""
    first, slash, rest = text.partition("/")
    if not slash or not (set(".:") & set(first) or first == "localhost" or first != first.lower()):
        domain, remainder = DEFAULT_DOMAIN, text
    else:
        domain, remainder = first, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = f"library/{remainder}"
    return domain, remainder
