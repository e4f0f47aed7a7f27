"""How one shows a registry who one is: by name and password, or by a token from the server that the registry names.

Sources: RFC 7235 (challenges), distribution's "Token Authentication Specification" and "OAuth2 Token Authentication".
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from real_engine.errors import EngineError, Unauthorized
from real_engine.registry.errors import RegistryError
from real_engine.registry.replies import error_of
from real_engine.registry.transport import split_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from real_engine.registry.credentials import Credentials
    from real_engine.registry.transport import Transport

CLIENT_ID = "onggi"

_TOKEN_LIMIT_BYTES = 1 << 20
_DEFAULT_SECONDS = 60.0  # what the specification gives a token that names no time of its own
_MARGIN_SECONDS = 10.0
_TOKEN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_SCHEME = re.compile(r"\s*,?\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s+|$)")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')


class NoCredentials(Unauthorized):
    """The registry wants a name and a password, and there are none."""

    plain = "no basic auth credentials"

    def __init__(self, request: str = "") -> None:
        super().__init__(f"{request}: {self.plain}" if request else self.plain)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry wants to be shown: a scheme (basic, bearer) and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """The challenges of `WWW-Authenticate` headers, of which each may hold several."""
    challenges = []
    for header in headers:
        position = 0
        while matched := _SCHEME.match(header, position):
            position = matched.end()
            parameters = {}
            while parameter := _PARAMETER.match(header, position):
                position = parameter.end()
                quoted = parameter[2]
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else parameter[3]
                parameters[parameter[1].lower()] = value
            challenges.append(Challenge(matched[1].lower(), parameters))
    return challenges


class Authenticator:
    """Makes the `Authorization` header for one registry. Safe for threads."""

    def __init__(self, transport: Transport, credentials: Credentials, offline: bool = False) -> None:
        self._transport = transport
        self._credentials = credentials
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}
        self._offline = offline
        self.only_tls = False
        """Whether the registry itself was spoken to by TLS: then a password goes nowhere without it."""
        self.identity_token = ""
        """A token for the time to come, where the server gave one because `offline` asked for it."""

    def learn(self, headers: Iterable[str]) -> None:
        """Take what the registry wants from its `WWW-Authenticate` headers; a token is preferred to a password."""
        known = {challenge.scheme: challenge for challenge in reversed(parse_challenges(headers))}
        self._challenge = known.get("bearer") or known.get("basic") or self._challenge

    def forget(self, scopes: tuple[str, ...]) -> None:
        """Forget the token for these scopes: it was not taken."""
        with self._lock:
            self._tokens.pop(scopes, None)

    @property
    def by_token(self) -> bool:
        """Whether the registry wants a token."""
        return self._challenge is not None and self._challenge.scheme == "bearer"

    def headers(self, scopes: tuple[str, ...]) -> dict[str, str]:
        """What a request that needs these scopes (`repository:NAME:pull,push`) has to carry.

        Raises:
            NoCredentials: a name and a password are wanted, and there are none.
            RegistryError, EngineError: the server of tokens gives none.
        """
        if self._credentials.registry_token:
            return {"Authorization": f"Bearer {self._credentials.registry_token}"}
        challenge = self._challenge
        if challenge is None:
            return {}
        if challenge.scheme == "basic":
            if not self._credentials.username:
                raise NoCredentials
            return {"Authorization": self._credentials.basic}
        with self._lock:  # held while one fetches it: the others would only ask for the same
            token, until = self._tokens.get(scopes, ("", 0.0))
            if time.monotonic() >= until:
                token, seconds = self._fetch(challenge, scopes)
                self._tokens[scopes] = (token, time.monotonic() + max(seconds - _MARGIN_SECONDS, 1.0))
        return {"Authorization": f"Bearer {token}"}

    def _fetch(self, challenge: Challenge, scopes: tuple[str, ...]) -> tuple[str, float]:
        """A token, and for how many seconds it is good."""
        realm = challenge.parameters.get("realm", "")
        parts = split_url(realm)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise EngineError(f"no token can be had: the registry names `{realm}` as their server")
        if self.only_tls and parts.scheme != "https" and self._credentials != type(self._credentials)():
            raise EngineError(
                f"the registry names `{realm}` as its server of tokens, to which no password is sent in the clear"
            )
        service = challenge.parameters.get("service", "")
        fields = [("service", service)] if service else []
        fields += [("scope", scope) for scope in scopes]
        credentials = self._credentials
        if credentials.identity_token:
            form = [
                ("grant_type", "refresh_token"),
                ("service", service),
                ("client_id", CLIENT_ID),
                ("scope", " ".join(scopes)),
                ("refresh_token", credentials.identity_token),
            ]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            reply = self._transport.request("POST", realm, headers, urlencode(form).encode())
        else:
            headers = {}
            if credentials.username:
                fields += [("account", credentials.username), ("client_id", CLIENT_ID)]
                headers["Authorization"] = credentials.basic
                if self._offline:
                    fields.append(("offline_token", "true"))
            separator = "&" if parts.query else "?"
            reply = self._transport.request("GET", f"{realm}{separator}{urlencode(fields)}", headers)
        with reply:
            if reply.status != 200:
                raise error_of(reply)
            try:
                answer = json.loads(reply.read(_TOKEN_LIMIT_BYTES))
                token = answer.get("token") or answer.get("access_token")
                seconds = float(answer.get("expires_in") or _DEFAULT_SECONDS)
                # What is no word of a header could add one of the server's own making to what we send.
                if not isinstance(token, str) or _TOKEN.fullmatch(token) is None or not math.isfinite(seconds):
                    raise ValueError("no token in the answer")
            except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, OSError) as error:
                raise RegistryError(
                    "UNKNOWN", "authorization server did not include a token in the response"
                ) from error
        refresh = answer.get("refresh_token")
        if isinstance(refresh, str) and refresh:
            self.identity_token = refresh
        return token, max(seconds, _DEFAULT_SECONDS)
