"""Network namespaces that no process need live in: made by a thread, kept by a descriptor, entered for a moment.

A network namespace belongs to a thread, not to a process. A thread that makes one and ends leaves it to whoever holds a
descriptor of it; the kernel removes it, with all its interfaces, when the last descriptor and process are gone.
"""

import contextlib
import ctypes
import os
import threading
import time
from collections import deque
from collections.abc import Iterator

from real_engine.linux.interfaces import set_up
from real_engine.linux.libc import fail
from real_engine.linux.processes import CLONE_NEWNET

_OWN = "/proc/thread-self/ns/net"
# These calls may take the kernel a millisecond, so other threads run meanwhile (cf. `libc`, which holds the GIL).
_libc = ctypes.CDLL(None, use_errno=True)
_READY = 4
# Making one takes the kernel's lock of all network configuration, which whoever has just taken one needs to attach it.
_PAUSE_SECONDS = 0.03


def own_namespace() -> int:
    """A descriptor of the network namespace that this thread is in."""
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def namespace_of(pid: int) -> int:
    """A descriptor of the network namespace that process `pid` is in.

    Raises:
        OSError: there is no such process, or it may not be looked at.
    """
    return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def entered(namespace: int) -> Iterator[None]:
    """This thread is in `namespace` for a while, and comes home afterwards. Sockets opened meanwhile stay there.

    Raises:
        OSError: it may not be entered.
    """
    home = own_namespace()
    try:
        if _libc.setns(namespace, CLONE_NEWNET) < 0:
            fail("setns")
        try:
            yield
        finally:
            if _libc.setns(home, CLONE_NEWNET) < 0:
                fail("setns, on the way home")
    finally:
        os.close(home)


def create_network_namespace() -> int:
    """A descriptor of a new network namespace whose loopback is up, and whose other interfaces begin without IPv6.

    Raises:
        OSError: EPERM without the right to make one, ENOSPC when there are too many.
    """
    made: list[int] = []
    errors: list[OSError] = []

    def make() -> None:
        try:
            if _libc.unshare(CLONE_NEWNET) < 0:
                fail("unshare")
            _disable_ipv6()
            set_up("lo")
            made.append(own_namespace())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=make, name="new network namespace", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return made[0]


def _disable_ipv6() -> None:
    """No interface has IPv6 until a network gives it an IPv6 address (libnetwork, osl/sandbox_linux.go)."""
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        write_setting("net/ipv6/conf/all/disable_ipv6", "1")


def write_setting(name: str, value: str) -> None:
    """Write a sysctl of the network namespace that this thread is in, such as `net/ipv4/ip_forward`.

    Raises:
        OSError: there is no such setting, or it is not ours to change.
    """
    descriptor = os.open(f"/proc/sys/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def read_setting(name: str) -> str:
    """A sysctl of the network namespace that this thread is in.

    Raises:
        OSError: there is no such setting.
    """
    with open(f"/proc/sys/{name}", encoding="ascii") as file:
        return file.read().strip()


class NamespacePool:
    """A few network namespaces made ahead, so that a container's start need not wait for one. Thread-safe.

    One that is taken is replaced in the background. `close` gives the rest back to the kernel.
    """

    def __init__(self, size: int = _READY) -> None:
        self._size = size
        self._ready: deque[int] = deque()
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def take(self) -> int:
        """A descriptor of a fresh namespace, which is the caller's to close.

        Raises:
            OSError: none was ready, and none could be made.
        """
        with self._lock:
            namespace = self._ready.popleft() if self._ready else None
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._refill, name="network namespaces", daemon=True)
                self._thread.start()
        self._wanted.set()
        return create_network_namespace() if namespace is None else namespace

    def _refill(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._ready:
                time.sleep(_PAUSE_SECONDS)
            while not self._closed and len(self._ready) < self._size:
                try:
                    namespace = create_network_namespace()
                except OSError:  # whoever takes next meets the same error, and tells it
                    break
                with self._lock:
                    if self._closed:
                        os.close(namespace)
                    else:
                        self._ready.append(namespace)
            if self._closed:
                return

    def close(self) -> None:
        """End the background work and close what was ready."""
        with self._lock:
            self._closed = True
            remaining = list(self._ready)
            self._ready.clear()
            thread = self._thread
        self._wanted.set()
        for namespace in remaining:
            os.close(namespace)
        if thread is not None:
            thread.join()
