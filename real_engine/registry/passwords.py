"""Who may use a registry: a file of names and bcrypt hashes, as Apache's `htpasswd -B` writes it.

bcrypt itself comes from the package `bcrypt` where it is installed, and otherwise from the C library's crypt(3)
(libxcrypt: Debian 11 and newer, Fedora, Arch).
"""

import base64
import binascii
import ctypes
import ctypes.util
import hmac
import os
import re
import secrets
import threading
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from real_engine.errors import EngineError

_BCRYPT = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")
_COST = 10  # 2**10 rounds: some 60 ms, once for each user and password
_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_CRYPT_DATA_BYTES = 32768  # sizeof(struct crypt_data), crypt.h of libxcrypt


class Passwords:
    """The names and passwords of a file, which is read again when it changes. Safe for threads.

    Raises:
        EngineError: the file can't be read, or has a line that is no name with a bcrypt hash.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._hashes: dict[str, str] = {}
        self._lock = threading.Lock()
        # bcrypt is slow on purpose; that a password was right is remembered, by a key that dies with this process.
        self._key = secrets.token_bytes(32)
        self._right: dict[str, bytes] = {}
        self._nobody = hash_password(secrets.token_hex(8))
        self._read()

    def check(self, authorization: str) -> str | None:
        """The user whose name and password an `Authorization: Basic` header holds, or None.

        A name that isn't there takes as long as a password that is wrong.
        """
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        if not colon:
            return None
        with self._lock:
            self._read()
            known = self._hashes.get(name)
            right = self._right.get(name, b"")
            # Of a cost that somebody's hash has: another would tell by its time that the name isn't there.
            hashed = known or next(iter(self._hashes.values()), self._nobody)
        mark = hmac.digest(self._key, f"{hashed}\0{password}".encode(), "sha256")
        if known is not None and hmac.compare_digest(mark, right):
            return name
        if not hmac.compare_digest(_bcrypt(password, hashed), hashed) or known is None:
            return None
        with self._lock:
            self._right[name] = mark
        return name

    def _read(self) -> None:
        """Read the file, if it is another than the last time."""
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
            if stamp == self._stamp:
                return
            lines = self._path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise EngineError(f"cannot read the passwords in {self._path}: {reason}") from error
        hashes = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, _, hashed = line.strip().partition(":")
            if not name or not _BCRYPT.fullmatch(hashed):
                raise EngineError(
                    f"{self._path}, line {number}: no name with a bcrypt hash; write it with `onggi registry htpasswd "
                    "NAME` or `htpasswd -B`"
                )
            hashes[name] = hashed
        self._hashes, self._right, self._stamp = hashes, {}, stamp


def hash_password(password: str, cost: int = _COST) -> str:
    """The bcrypt hash of a password, with a salt of its own: what stands after the colon in the file.

    Raises:
        EngineError: nothing on this machine can do it, or the password is more than bcrypt looks at (72 bytes).
    """
    if len(password.encode()) > 72 or "\0" in password:
        raise EngineError("bcrypt takes passwords of up to 72 bytes, without a zero byte")
    salt = "".join(secrets.choice(_ALPHABET) for _ in range(21)) + secrets.choice(".Oeu")  # 128 bits in 22 characters
    return _bcrypt(password, f"$2y${cost:02}${salt}")


def _bcrypt(password: str, setting: str) -> str:
    """bcrypt of `password` with the version, cost and salt at the beginning of `setting`."""
    secret = password.encode()[:72]
    if b"\0" in secret:
        return ""
    library = _library()
    if hasattr(library, "hashpw"):
        return str(library.hashpw(secret, setting[:29].encode()).decode())
    # crypt_r wants a buffer of the caller's, so that threads don't share one.
    data = ctypes.create_string_buffer(_CRYPT_DATA_BYTES)
    result: bytes | None = library.crypt_r(secret, setting.encode(), data)
    if result is None or not result.startswith(b"$2"):
        raise EngineError("this machine's crypt(3) knows no bcrypt: pip install bcrypt")
    return result.decode()


@cache
def _library() -> Any:
    """The module `bcrypt`, or the C library's crypt with its function `crypt_r`."""
    with suppress(ImportError):
        return import_module("bcrypt")
    name = ctypes.util.find_library("crypt") if os.name == "posix" else None
    if name is None:
        raise EngineError("there is nothing here that knows bcrypt: pip install bcrypt")
    library = ctypes.CDLL(name)
    library.crypt_r.restype = ctypes.c_char_p
    library.crypt_r.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p)
    return library
