"""Places where connections arrive: UNIX sockets for who may use the file, TCP for who has a certificate."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, cast

from real_engine.errors import Conflict, EngineError, InvalidParameter
from real_engine.http.messages import Peer
from real_engine.linux import outside

if TYPE_CHECKING:
    import ssl

_BACKLOG = 1024
_LONGEST_UNIX_PATH = 107  # sun_path of struct sockaddr_un is 108 bytes, one of them the zero at the end
_HANDSHAKE_SECONDS = 10.0
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Listener(ABC):
    """A listening socket and what is to be done with each connection that it gives."""

    def __init__(self, listening: socket.socket, address: str) -> None:
        self.socket = listening
        self.address = address
        """As a person writes it: unix:///run/onggi/onggi.sock, tcp://127.0.0.1:2376."""

    def accept(self) -> socket.socket:
        """The next connection; waits for it."""
        return self.socket.accept()[0]

    @abstractmethod
    def secure(self, accepted: socket.socket) -> tuple[socket.socket, Peer]:
        """Make the connection ready for its first byte, and say who is there.

        Raises:
            OSError: the handshake failed.
        """

    def close(self) -> None:
        """Take no more connections, and wake who waits for one."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # close alone leaves a thread that is in accept there
        self.socket.close()


class UnixListener(Listener):
    """A UNIX socket, for the owner and one group (mode 0660).

    What a server that was killed left behind is replaced; a socket at which one still answers is not.

    Raises:
        EngineError: no such group, no right, the path is too long or no place for a socket.
        Conflict: somebody listens there.
    """

    def __init__(self, path: Path, group: str | None = None, mode: int = 0o660) -> None:
        self.path = path.absolute()
        name = os.fspath(self.path)
        address = f"unix://{name}"
        check_unix_path(self.path)
        gid = group_id(group)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            self._clear()
            # The mask makes it nobody else's from its first moment, and not only from the chmod on.
            before = os.umask(0o777 & ~mode | 0o111)
            try:
                listening.bind(name)
            finally:
                os.umask(before)
            os.chmod(name, mode)
            if gid is not None:
                os.chown(name, -1, gid)
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            kind = Conflict if error.errno == errno.EADDRINUSE else EngineError
            raise kind(f"cannot listen on {address}: {error.strerror or error}") from error
        except BaseException:
            listening.close()
            raise
        super().__init__(listening, address)
        self._identity = _identity(self.path)

    def secure(self, accepted: socket.socket) -> tuple[socket.socket, Peer]:
        """The connection as it is, and the process that opened it."""
        return accepted, Peer(self.address, *peer_credentials(accepted))

    def close(self) -> None:
        """Take no more connections, and remove the socket if it is still ours."""
        if self._identity is not None and _identity(self.path) == self._identity:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self._identity = None
        super().close()

    def _clear(self) -> None:
        """Make room at the path.

        Raises:
            Conflict: somebody listens there, or something else than a socket is there.
        """
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(status.st_mode):
            raise Conflict(f"cannot listen on unix://{self.path}: there is something, and it is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(os.fspath(self.path))
            except (ConnectionRefusedError, FileNotFoundError):
                pass
            except OSError as error:
                raise Conflict(f"cannot listen on unix://{self.path}: it is in use ({error})") from error
            else:
                raise Conflict(f"cannot listen on unix://{self.path}: another server answers there")
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


class TcpListener(Listener):
    """A TCP port; `context` is the TLS that each connection is secured with, None for plain HTTP.

    Whether plain HTTP is to be allowed there is the caller's to say.

    Raises:
        Conflict: the port is taken.
        EngineError: the address isn't ours, or no right to that port.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        shown = f"[{host}]" if ":" in host else host
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            if outside.is_elsewhere():
                listening = outside.listen("tcp", str(address[0]), port)
            else:
                listening = socket.socket(family, kind, protocol)
                try:
                    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    listening.bind(address)
                    listening.listen(_BACKLOG)
                except BaseException:
                    listening.close()
                    raise
        except OSError as error:
            reason = Conflict if error.errno == errno.EADDRINUSE else EngineError
            raise reason(f"cannot listen on tcp://{shown}:{port}: {error.strerror or error}") from error
        self.port: int = listening.getsockname()[1]
        super().__init__(listening, f"tcp://{shown}:{self.port}")

    def secure(self, accepted: socket.socket) -> tuple[socket.socket, Peer]:
        """The connection with TLS on it, and whose certificate came."""
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        host, port = accepted.getpeername()[:2]
        if self._context is None:
            return accepted, Peer(f"{host}:{port}")
        accepted.settimeout(_HANDSHAKE_SECONDS)
        secured = self._context.wrap_socket(accepted, server_side=True)
        return secured, Peer(f"{host}:{port}", certificate=_subject(secured))


def check_unix_path(path: Path) -> None:
    """Refuse a path that is too long for a UNIX socket.

    Raises:
        InvalidParameter: it is.
    """
    length = len(os.fsencode(path.absolute()))
    if length > _LONGEST_UNIX_PATH:
        raise InvalidParameter(
            f"cannot listen on unix://{path}: a UNIX socket's path has at most {_LONGEST_UNIX_PATH} bytes, and this "
            f"has {length}"
        )


def group_id(name: str | None) -> int | None:
    """The number of a group, given by name or number; None stays None.

    Raises:
        InvalidParameter: there is none of that name.
    """
    if name is None or name == "":
        return None
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name.isdecimal():
            return int(name)
        raise InvalidParameter(f"there is no group `{name}` on this machine") from None


def peer_credentials(connection: socket.socket) -> tuple[int, int, int]:
    """Process, user and group of who opened a UNIX connection, as the kernel noted them; (0, -1, -1) if unknown."""
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except (OSError, AttributeError):
        return (0, -1, -1)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    return pid, uid, gid


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _subject(secured: ssl.SSLSocket) -> str:
    """The common name of the client's certificate."""
    certificate = secured.getpeercert() or {}
    subject = cast("tuple[tuple[tuple[str, str], ...], ...]", certificate.get("subject", ()))
    return next((value for part in subject for name, value in part if name == "commonName"), "")
