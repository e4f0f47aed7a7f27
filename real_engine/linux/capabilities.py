"""Capabilities: the parts into which Linux has divided root's power (capabilities(7))."""

import ctypes
from collections.abc import Iterable
from functools import cache

from real_engine.linux.libc import fail, function
from real_engine.linux.processes import PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, PR_CAPBSET_DROP, prctl

# The number of a capability is its place. Source: include/uapi/linux/capability.h.
NAMES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)

_LINUX_CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    """`struct __user_cap_header_struct`."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    """`struct __user_cap_data_struct`, of which version 3 has two: bits 0 to 31 and 32 to 63."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


_capset = function("capset", ctypes.POINTER(_Header), ctypes.POINTER(_Data * 2))


def mask(names: Iterable[str]) -> int:
    """The bit mask of capability names, written with or without `CAP_`, in either case.

    Raises:
        ValueError: a name that Linux doesn't have.
    """
    bits = 0
    for name in names:
        plain = name.upper().removeprefix("CAP_")
        if plain not in NAMES:
            raise ValueError(f"Linux has no capability {name}")
        bits |= 1 << NAMES.index(plain)
    return bits


@cache
def names(bits: int) -> tuple[str, ...]:
    """The names in a bit mask, with `CAP_`, in the kernel's order."""
    return tuple(f"CAP_{name}" for number, name in enumerate(NAMES) if bits >> number & 1)


def status_mask(field: str, path: str = "/proc/self/status") -> int:
    """A set of a process as /proc tells it: `field` is CapInh, CapPrm, CapEff, CapBnd, CapAmb or SigIgn (proc(5))."""
    with open(path) as file:
        for line in file:
            if line.startswith(field):
                return int(line.split()[1], 16)
    raise ValueError(f"{path} has no {field}")


def all_known() -> int:
    """Every capability that the running kernel has: what a new user namespace begins with."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return (1 << int(file.read()) + 1) - 1


def drop_bounding(bits: int) -> None:
    """Remove the capabilities in `bits` from the bounding set: no program executed later can have them."""
    number = 0
    while bits >> number:
        if bits >> number & 1:
            prctl(PR_CAPBSET_DROP, number)
        number += 1


def set_capabilities(bits: int) -> None:
    """Make `bits` the permitted and effective set, and the inheritable and ambient sets empty."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = _Header(version=_LINUX_CAPABILITY_VERSION_3, pid=0)
    low, high = bits & 0xFFFF_FFFF, bits >> 32
    data = (_Data * 2)(
        _Data(effective=low, permitted=low, inheritable=0), _Data(effective=high, permitted=high, inheritable=0)
    )
    if _capset(ctypes.byref(header), ctypes.byref(data)) < 0:
        fail("capset")
