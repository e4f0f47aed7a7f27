"""Network interfaces, by the ioctls of netdevice(7)."""

import ctypes
import struct

from real_engine.linux.libc import fail, libc

AF_INET = 2
SOCK_DGRAM = 2
SOCK_CLOEXEC = 0o2000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1

_IFREQ = struct.Struct("16sh22x")  # struct ifreq: the name, then a union of 24 bytes of which the flags take two
_socket = libc["socket"]
_socket.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int)
_ioctl = libc["ioctl"]
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p)
_close = libc["close"]
_close.argtypes = (ctypes.c_int,)


def set_up(interface: str) -> None:
    """Bring `interface` of this network namespace up. The kernel itself gives `lo` 127.0.0.1 and ::1 then."""
    request = _IFREQ.pack(interface.encode(), IFF_UP)
    descriptor = _socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
    if descriptor < 0:
        fail("socket")
    try:
        if _ioctl(descriptor, SIOCSIFFLAGS, request) < 0:
            fail(interface)
    finally:
        _close(descriptor)
