"""Which devices a cgroup v2 may open or make: a small program in the kernel's extended BPF.

On cgroup v1 the devices controller reads such rules from a file. On v2 a program decides, of the type
BPF_PROG_TYPE_CGROUP_DEVICE. It gets `struct bpf_cgroup_dev_ctx` and returns 1 to allow. The instructions here are the
few that this needs, in the encoding of the kernel's Documentation/bpf/standardization/instruction-set.rst.
"""

import ctypes
import os
import struct
from collections.abc import Iterable

from real_engine.linux.devices import DeviceRule
from real_engine.linux.libc import fail, syscall

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2
BPF_DEVCG_DEV_BLOCK = 1
BPF_DEVCG_DEV_CHAR = 2
_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_MKNOD, _READ, _WRITE
_KINDS = {"b": BPF_DEVCG_DEV_BLOCK, "c": BPF_DEVCG_DEV_CHAR}

_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_AND = 0x57  # BPF_ALU64 | BPF_AND | BPF_K
_MOVE = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
_JUMP_NOT_EQUAL = 0x55  # BPF_JMP | BPF_JNE | BPF_K
_MOVE_REGISTER = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
_SHIFT_RIGHT = 0x77  # BPF_ALU64 | BPF_RSH | BPF_K
_EXIT = 0x95  # BPF_JMP | BPF_EXIT
# Registers: r0 is returned, r1 holds the context at the start, and r2 to r5 may be used freely.
_RESULT, _CONTEXT, _TYPE, _MAJOR, _MINOR, _WANTED = 0, 1, 2, 3, 4, 5


class _ProgramAttributes(ctypes.Structure):
    """The head of `union bpf_attr` for BPF_PROG_LOAD."""

    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_char_p),
        ("license", ctypes.c_char_p),
    )


class _AttachAttributes(ctypes.Structure):
    """The head of `union bpf_attr` for BPF_PROG_ATTACH."""

    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
    )


_bpf = syscall("bpf", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)


def device_program(rules: Iterable[DeviceRule]) -> bytes:
    """A program that allows what one of the rules allows, and nothing else."""
    program = [
        _instruction(_LOAD_WORD, _TYPE, _CONTEXT, offset=0),  # access << 16 | type
        _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, offset=4),
        _instruction(_LOAD_WORD, _MINOR, _CONTEXT, offset=8),
    ]
    for rule in rules:
        program += _allow(rule)
    return b"".join([*program, _instruction(_MOVE, _RESULT, constant=0), _instruction(_EXIT)])


def _allow(rule: DeviceRule) -> list[bytes]:
    """Return 1 if everything about the device is as the rule says, else fall through to what follows."""
    body = [_instruction(_MOVE, _RESULT, constant=1), _instruction(_EXIT)]
    refused = sum(bit for letter, bit in _ACCESS.items() if letter not in rule.access)
    if refused:
        body = [
            _instruction(_MOVE_REGISTER, _WANTED, _TYPE),
            _instruction(_SHIFT_RIGHT, _WANTED, constant=16),
            _instruction(_AND, _WANTED, constant=refused),
            _instruction(_JUMP_NOT_EQUAL, _WANTED, offset=len(body), constant=0),
            *body,
        ]
    for register, number in ((_MINOR, rule.minor), (_MAJOR, rule.major)):
        if number is not None:
            body = [_instruction(_JUMP_NOT_EQUAL, register, offset=len(body), constant=number), *body]
    if rule.kind in _KINDS:
        body = [
            _instruction(_MOVE_REGISTER, _WANTED, _TYPE),
            _instruction(_AND, _WANTED, constant=0xFFFF),
            _instruction(_JUMP_NOT_EQUAL, _WANTED, offset=len(body), constant=_KINDS[rule.kind]),
            *body,
        ]
    return body


def attach_device_program(cgroup: int, program: bytes) -> None:
    """Load `program` and attach it to the cgroup whose directory is open at `cgroup`; it lives as long as the cgroup.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN, EINVAL where the kernel has no such programs.
    """
    load = _ProgramAttributes(
        prog_type=BPF_PROG_TYPE_CGROUP_DEVICE, insn_cnt=len(program) // 8, insns=program, license=b"Apache-2.0"
    )
    descriptor = _bpf(BPF_PROG_LOAD, ctypes.addressof(load), ctypes.sizeof(load))
    if descriptor < 0:
        fail("bpf(BPF_PROG_LOAD)")
    try:
        attach = _AttachAttributes(
            target_fd=cgroup,
            attach_bpf_fd=descriptor,
            attach_type=BPF_CGROUP_DEVICE,
            attach_flags=BPF_F_ALLOW_MULTI,
        )
        if _bpf(BPF_PROG_ATTACH, ctypes.addressof(attach), ctypes.sizeof(attach)) < 0:
            fail("bpf(BPF_PROG_ATTACH)")
    finally:
        os.close(descriptor)


def _instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    """`struct bpf_insn`."""
    return struct.pack("=BBhi", code, source << 4 | destination, offset, constant)
