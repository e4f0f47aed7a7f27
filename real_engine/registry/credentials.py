"""Who somebody is to a registry: read from the headers of Docker's API, and from the files of Docker's command line."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_engine.errors import EngineError, InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Mapping

DOCKER_HUB_KEY = "https://index.docker.io/v1/"
"""The name by which credentials for Docker Hub are kept since its first version."""

_HUB_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io")
_HELPER_SECONDS = 60.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+")
_MOST_CONFIG_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name with a password, or a token instead of both; all empty for nobody in particular.

    `identity_token` is exchanged for short-lived tokens (OAuth 2 refresh token), `registry_token` is sent as it is.
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server_address: str = ""

    def __repr__(self) -> str:  # a password must not get into a log
        return f"Credentials({self.username or 'nobody'!r})"

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Credentials:
        """From an AuthConfig of Docker's API, or an entry of its command line's file.

        Raises:
            InvalidParameter: a field that is no text, or an `auth` that can't be read.
        """
        fields = {}
        for name, key in _FIELDS.items():
            text = value.get(key, value.get(key.lower(), ""))
            if text is None:
                text = ""
            if not isinstance(text, str):
                raise InvalidParameter(f"invalid credentials: {key} is no text")
            fields[name] = text
        encoded = value.get("auth")
        if isinstance(encoded, str) and encoded and not fields["username"]:
            try:
                name, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise InvalidParameter("invalid credentials: auth is no base64 of name:password") from error
            fields |= {"username": name, "password": password.rstrip("\0")}
        return cls(**fields)

    @property
    def basic(self) -> str:
        """The value of an `Authorization` header with name and password."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


_FIELDS = {
    "username": "username",
    "password": "password",
    "identity_token": "identitytoken",
    "registry_token": "registrytoken",
    "server_address": "serveraddress",
}
ANONYMOUS = Credentials()
"""Nobody in particular."""


def from_header(text: str) -> Credentials:
    """The credentials of an `X-Registry-Auth` header: base64url of JSON; nobody if it is empty or can't be read.

    What can't be read is nobody, since that is what Docker makes of it (moby registry.DecodeAuthConfig's callers).
    """
    try:
        value = _decode(text)
        return Credentials.from_json(value) if isinstance(value, dict) else ANONYMOUS
    except (ValueError, InvalidParameter):
        return ANONYMOUS


def from_config_header(text: str) -> dict[str, Credentials]:
    """The credentials of an `X-Registry-Config` header, which a build carries: host to credentials."""
    try:
        value = _decode(text)
    except ValueError:
        return {}
    if not isinstance(value, dict):
        return {}
    known = {}
    for host, entry in value.items():
        if isinstance(entry, dict):
            try:
                known[normalized_host(str(host))] = Credentials.from_json(entry)
            except InvalidParameter:
                continue  # one that can't be read is no reason to build without the others
    return known


def to_header(credentials: Credentials) -> str:
    """The value of an `X-Registry-Auth` header."""
    fields = {key: getattr(credentials, name) for name, key in _FIELDS.items() if getattr(credentials, name)}
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


def normalized_host(name: str) -> str:
    """The host that a key of Docker's file means: without scheme, path and `v1`; Docker Hub's names are all one."""
    host = name.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return "docker.io" if host in _HUB_HOSTS else host


def find(host: str, path: Path | None = None) -> Credentials:
    """What `docker login` has kept for a registry, in the file or in the helper program that the file names.

    `path`: the file (default: DOCKER_CONFIG's or ~/.docker's config.json).

    Raises:
        EngineError: the file can't be read, or the helper program fails.
    """
    path = path or Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    config = _read_config(path)
    host = normalized_host(host)
    helper = _helper(config, host)
    if helper:
        return _ask(helper, DOCKER_HUB_KEY if host == "docker.io" else host)
    entries = config.get("auths")
    if isinstance(entries, dict):
        for key, entry in entries.items():
            if normalized_host(key) == host and isinstance(entry, dict) and entry:
                return Credentials.from_json(entry)
    return ANONYMOUS


def _decode(text: str) -> Any:
    text = text.strip()
    if not text:
        return None
    padded = text + "=" * (-len(text) % 4)
    return json.loads(base64.b64decode(padded.replace("+", "-").replace("/", "_"), altchars=b"-_"))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_CONFIG_BYTES)
        config = json.loads(content)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EngineError(f"cannot read {path}: {error}") from error
    return config if isinstance(config, dict) else {}


def _helper(config: Mapping[str, Any], host: str) -> str:
    """The name of the program that keeps the credentials of a host, or ""."""
    helpers = config.get("credHelpers")
    if isinstance(helpers, dict):
        for key, name in helpers.items():
            if normalized_host(key) == host and isinstance(name, str):
                return name
    store = config.get("credsStore")
    return store if isinstance(store, str) else ""


def _ask(helper: str, server: str) -> Credentials:
    """Ask `docker-credential-HELPER get` for the credentials of a server (docker-credential-helpers' protocol)."""
    if not _HELPER_NAME.fullmatch(helper):
        raise EngineError(f"`{helper}` is no name of a credential helper")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"cannot run {program}: {error}") from error
    if done.returncode != 0:
        said = (done.stdout or done.stderr).decode(errors="replace").strip()
        if "credentials not found" in said:
            return ANONYMOUS
        raise EngineError(f"{program} failed: {said}")
    try:
        answer = json.loads(done.stdout)
        name, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{program} gave no credentials that can be read") from error
    return Credentials(identity_token=secret) if name == "<token>" else Credentials(name, secret)
