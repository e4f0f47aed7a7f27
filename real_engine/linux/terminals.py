"""Pseudo-terminals: a master, which whoever watches holds, and a slave, which a program takes for its terminal."""

import errno
import fcntl
import os
import stat
import struct
import termios
from collections.abc import Callable

PTMX = (5, 2)  # major and minor number. Source: Documentation/admin-guide/devices.txt
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
TIOCGPTN = 0x80045430
_SLAVE_MAJORS = range(136, 144)


def open_slave(master: int, size: tuple[int, int] | None = None) -> int:
    """Unlock the terminal whose `master` is a ptmx that has been opened to read and write; returns its slave, open.

    `size` is in rows and columns. The slave is opened by the master itself (Linux 4.13), not by a path, at which
    somebody could have put something else.

    Raises:
        OSError: ENODEV when it is no ptmx or slave.
    """
    _check(master, lambda major, minor: (major, minor) == PTMX)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    if size is not None:
        set_size(master, *size)
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check(slave, lambda major, _: major in _SLAVE_MAJORS)
    except OSError:
        os.close(slave)
        raise
    return slave


def number_of(master: int) -> int:
    """The number of the slave, which is its name in the devpts that it belongs to."""
    (number,) = struct.unpack("I", fcntl.ioctl(master, TIOCGPTN, bytes(4)))
    return int(number)


def set_size(terminal: int, rows: int, columns: int) -> None:
    """Set the window size; the programs in the foreground get SIGWINCH if it has changed."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


def size_of(terminal: int) -> tuple[int, int]:
    """The window size in rows and columns."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


def make_controlling(terminal: int) -> None:
    """Make `terminal` the controlling terminal of this process, which has a session of its own and none yet."""
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def _check(descriptor: int, expected: Callable[[int, int], bool]) -> None:
    status = os.fstat(descriptor)
    numbers = os.major(status.st_rdev), os.minor(status.st_rdev)
    if not stat.S_ISCHR(status.st_mode) or not expected(*numbers):
        raise OSError(errno.ENODEV, f"not a terminal but {numbers[0]}:{numbers[1]}")
