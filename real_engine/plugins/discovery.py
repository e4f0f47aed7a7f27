"""Where plugins are found: `NAME.sock` among the sockets, `NAME.spec` or `NAME.json` among the specs.

Source: docs.docker.com/engine/extend/plugin_api, "Plugin discovery"; moby pkg/plugins/discovery.go.
"""

import json
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from real_engine.errors import EngineError, NotFound

SOCKET_DIRECTORIES = (Path("/run/docker/plugins"),)
SPEC_DIRECTORIES = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_LARGEST_SPEC = 64 << 10


@dataclass(frozen=True, slots=True)
class Address:
    """Where a plugin listens: `unix:///PATH`, or `tcp://HOST:PORT`, with TLS where files for it are named."""

    url: str
    insecure_skip_verify: bool = False
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    @property
    def socket_path(self) -> str:
        """The path of a UNIX socket; empty for TCP."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else ""

    @property
    def encrypted(self) -> bool:
        """Whether TLS is spoken."""
        return bool(self.ca_file or self.cert_file or self.url.startswith("https://"))


class Discovery:
    """Finds plugins in `directories` (each may hold sockets and specs), and where Docker's are."""

    def __init__(self, directories: Sequence[Path] = ()) -> None:
        self._directories = (*directories, *SOCKET_DIRECTORIES, *SPEC_DIRECTORIES)

    @property
    def directories(self) -> tuple[Path, ...]:
        """Where it looks, in this order."""
        return self._directories

    def find(self, name: str) -> Address:
        """The address of a plugin.

        Raises:
            NotFound: there is none of that name.
            EngineError: its spec cannot be read.
        """
        if _NAME.fullmatch(name):
            for directory in self._directories:
                for path in (directory / f"{name}.sock", directory / name / f"{name}.sock"):
                    if _is_socket(path):
                        return Address(f"unix://{path}")
                for path in (directory / f"{name}.spec", directory / name / f"{name}.spec"):
                    if path.is_file():
                        return _address(path, _read(path).decode(errors="replace").strip())
                for path in (directory / f"{name}.json", directory / name / f"{name}.json"):
                    if path.is_file():
                        return _json_spec(path)
        raise NotFound(f'plugin "{name}" not found')

    def names(self) -> list[str]:
        """The names of the plugins whose socket is there. A spec says nothing about whether somebody listens."""
        found = set()
        for directory in self._directories:
            try:
                entries = os.listdir(directory)
            except OSError:
                continue
            for entry in entries:
                name = entry.removesuffix(".sock")
                if _NAME.fullmatch(name) and (
                    (entry != name and _is_socket(directory / entry)) or _is_socket(directory / entry / f"{entry}.sock")
                ):
                    found.add(name)
        return sorted(found)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_LARGEST_SPEC + 1)
    if len(data) > _LARGEST_SPEC:
        raise EngineError(f"the plugin spec {path} is longer than {_LARGEST_SPEC} bytes")
    return data


def _address(path: Path, url: str, **tls: str | bool) -> Address:
    parts = urlsplit(url)
    usable = parts.path.startswith("/") if parts.scheme == "unix" else bool(parts.netloc)
    if parts.scheme not in ("unix", "tcp", "http", "https") or not usable:
        raise EngineError(f"the plugin spec {path} names no address: write unix:///PATH or tcp://HOST:PORT")
    return Address(url, **tls)  # type: ignore[arg-type]  # checked where it is read


def _json_spec(path: Path) -> Address:
    try:
        spec = json.loads(_read(path))
        tls = spec.get("TLSConfig") or {}
        files = {field: str(tls.get(name) or "") for field, name in _TLS_FIELDS.items()}
        return _address(path, str(spec["Addr"]), insecure_skip_verify=bool(tls.get("InsecureSkipVerify")), **files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"cannot read the plugin spec {path}: {error}") from error


_TLS_FIELDS = {"ca_file": "CAFile", "cert_file": "CertFile", "key_file": "KeyFile"}
