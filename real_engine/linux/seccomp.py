"""seccomp: a filter of system calls, compiled from a profile in Docker's JSON format to the kernel's classic BPF.

The compiler is made for the kernel's way of loading a filter: since 5.11 it runs the filter once for every system call
number, to note which ones are always allowed. A list of 400 comparisons makes that a millisecond. Here neighbouring
numbers with the same outcome become a range, and the ranges a binary search: a dozen comparisons for any number.
"""

import ctypes
import errno
import json
import platform
import struct
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from real_engine.linux.libc import fail, syscall

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6] (both architectures: little-endian).
_NUMBER_OFFSET = 0
_ARCHITECTURE_OFFSET = 4
_ARGUMENTS_OFFSET = 16

# Source: include/uapi/linux/audit.h.
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Docker's profiles name architectures in Go's way.
_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

# Source: include/uapi/linux/seccomp.h.
SECCOMP_RET_KILL_PROCESS = 0x80000000
_ACTIONS = {
    "SCMP_ACT_KILL_PROCESS": SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_SECCOMP_SET_MODE_FILTER = 1

# Source: include/uapi/linux/bpf_common.h.
_LD_W_ABS = 0x20
_ALU_AND_K = 0x54
_JMP_JA = 0x05
_JMP_JEQ_K = 0x15
_JMP_JGT_K = 0x25
_JMP_JGE_K = 0x35
_RET_K = 0x06
_FARTHEST_CONDITIONAL_JUMP = 255
_MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS

# Source: arch/x86/include/uapi/asm/unistd.h, __X32_SYSCALL_BIT. All higher numbers have it or are no calls either.
_X32_BIT = 0x40000000

_NUMBERS_FILE = Path(__file__).with_name("syscall_numbers.json")


class Instruction(NamedTuple):
    """`struct sock_filter`: an operation, where to jump if true and if false (relative to the next), and a constant."""

    code: int
    jump_true: int
    jump_false: int
    constant: int


class Condition(NamedTuple):
    """A condition on one argument of a system call; `mask` only for SCMP_CMP_MASKED_EQ."""

    argument: int
    operator: str
    value: int
    mask: int


class Rule(NamedTuple):
    """If all conditions hold, the filter returns `outcome`."""

    conditions: tuple[Condition, ...]
    outcome: int


Program = list[Instruction]

_PASSING = (_ACTIONS["SCMP_ACT_ALLOW"], _ACTIONS["SCMP_ACT_LOG"])
_NO_X32 = (
    Instruction(_JMP_JGE_K, 0, 1, _X32_BIT),
    Instruction(_RET_K, 0, 0, _ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS),
)


@cache
def syscall_numbers(machine: str) -> Mapping[str, int]:
    """Numbers of the system calls by name on `machine` (x86_64 or aarch64).

    Raises:
        ValueError: another machine, whose numbers are not in `syscall_numbers.json`.
    """
    table: dict[str, dict[str, int]] = json.loads(_NUMBERS_FILE.read_text())
    if machine not in table:
        raise ValueError(f"no system call numbers for {machine}; {_NUMBERS_FILE.name} has {', '.join(table)}")
    return table[machine]


@cache
def compile_profile_file(path: Path, capabilities: frozenset[str]) -> bytes:
    """The filter of the profile at `path` for this machine, as `install` wants it; compiled once in a process.

    Raises:
        OSError: the file can't be read.
        ValueError: it isn't a profile, with the reason.
    """
    return compile_profile_text(path.read_text(), capabilities)


@lru_cache(maxsize=32)
def compile_profile_text(text: str, capabilities: frozenset[str]) -> bytes:
    """The filter of the profile that `text` is, as JSON; the last ones are kept.

    Raises:
        ValueError: it isn't a profile, with the reason.
    """
    release = platform.release().split(".")
    kernel = (int(release[0]), int("".join(digit for digit in release[1] if digit.isdigit())))
    return assemble(compile_profile(json.loads(text), capabilities, platform.machine(), kernel))


def compile_profile(
    profile: Mapping[str, Any], capabilities: frozenset[str], machine: str, kernel: tuple[int, int]
) -> Program:
    """Compile a profile in Docker's format for a process that keeps `capabilities`, on a machine and a kernel version.

    Calls of another architecture (32-bit ones on x86_64, say) have other numbers, so they end the process. Those of
    x32, which are calls of x86_64 with a bit more in their number, don't exist (ENOSYS) where the profile allows what
    it doesn't name: it would be evaded by them.

    Raises:
        ValueError: an action, operator or shape that the format doesn't have.
    """
    try:
        default = _outcome(profile["defaultAction"], profile.get("defaultErrnoRet", errno.EPERM))
        rules = _rules_by_number(profile.get("syscalls", ()), capabilities, machine, kernel)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a seccomp profile: {type(error).__name__} {error}") from error
    tree = _search(_ranges(rules), default)
    program = [
        Instruction(_LD_W_ABS, 0, 0, _ARCHITECTURE_OFFSET),
        Instruction(_JMP_JEQ_K, 1, 0, AUDIT_ARCH[machine]),
        Instruction(_RET_K, 0, 0, SECCOMP_RET_KILL_PROCESS),
        Instruction(_LD_W_ABS, 0, 0, _NUMBER_OFFSET),
        *(_NO_X32 if machine == "x86_64" and default in _PASSING else ()),
        *tree,
    ]
    if len(program) > _MOST_INSTRUCTIONS:
        raise ValueError(f"the filter has {len(program)} instructions; the kernel takes {_MOST_INSTRUCTIONS}")
    return program


def assemble(program: Program) -> bytes:
    """The program as an array of `struct sock_filter`."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


class _Fprog(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_seccomp = syscall("seccomp", ctypes.c_uint, ctypes.c_uint, ctypes.POINTER(_Fprog))


def install(filter_bytes: bytes) -> None:
    """Put this process and all that it starts under the filter, for ever. Needs no_new_privs or CAP_SYS_ADMIN."""
    fprog = _Fprog(len(filter_bytes) // struct.calcsize("=HBBI"), filter_bytes)
    if _seccomp(_SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(fprog)) < 0:
        fail("seccomp")


def _outcome(action: str, errno_return: int) -> int:
    if action not in _ACTIONS:
        raise ValueError(f"unknown seccomp action {action!r}; known: {', '.join(_ACTIONS)}")
    return _ACTIONS[action] | (errno_return if action == "SCMP_ACT_ERRNO" else 0)


def _rules_by_number(
    entries: Sequence[Mapping[str, Any]], capabilities: frozenset[str], machine: str, kernel: tuple[int, int]
) -> dict[int, list[Rule]]:
    """The rules of each system call number, in the profile's order; names unknown to this machine are left out."""
    numbers = syscall_numbers(machine)
    rules: dict[int, list[Rule]] = {}
    for entry in entries:
        if not _applies(entry, capabilities, machine, kernel):
            continue
        outcome = _outcome(entry["action"], entry.get("errnoRet", errno.EPERM))
        conditions = tuple(_condition(argument) for argument in entry.get("args") or ())
        for name in entry.get("names") or [entry["name"]]:
            if name in numbers:
                rules.setdefault(numbers[name], []).append(Rule(conditions, outcome))
    return rules


def _condition(argument: Mapping[str, Any]) -> Condition:
    operator, value = argument["op"], int(argument["value"])
    if operator == "SCMP_CMP_MASKED_EQ":
        return Condition(int(argument["index"]), operator, int(argument.get("valueTwo", 0)), value)
    if operator not in _COMPARISONS:
        raise ValueError(f"unknown seccomp operator {operator!r}; known: {', '.join(_COMPARISONS)}, SCMP_CMP_MASKED_EQ")
    return Condition(int(argument["index"]), operator, value, 0)


def _applies(entry: Mapping[str, Any], capabilities: frozenset[str], machine: str, kernel: tuple[int, int]) -> bool:
    architecture = _GO_ARCHITECTURES[machine]
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    if includes.get("caps") and not capabilities.issuperset(includes["caps"]):
        return False
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    oldest = includes.get("minKernel")
    if oldest and kernel < tuple(int(part) for part in oldest.split(".")[:2]):
        return False
    return capabilities.isdisjoint(excludes.get("caps") or ()) and architecture not in (excludes.get("arches") or ())


def _ranges(rules: Mapping[int, list[Rule]]) -> list[tuple[int, tuple[Rule, ...]]]:
    """Where each run of equal rules begins, from 0 to the end of all numbers."""
    ranges: list[tuple[int, tuple[Rule, ...]]] = []
    end = max(rules, default=-1) + 2  # one past the last known number, and so on to the highest: no rule
    for number in range(end):
        found = tuple(rules.get(number, ()))
        if not ranges or ranges[-1][1] != found:
            ranges.append((number, found))
    return ranges


def _search(ranges: Sequence[tuple[int, tuple[Rule, ...]]], default: int) -> Program:
    """A binary search that ends in the rules of the range that holds the number."""
    if len(ranges) == 1:
        return _leaf(ranges[0][1], default)
    middle = len(ranges) // 2
    left, right = _search(ranges[:middle], default), _search(ranges[middle:], default)
    first = ranges[middle][0]
    if len(left) <= _FARTHEST_CONDITIONAL_JUMP:
        return [Instruction(_JMP_JGE_K, len(left), 0, first), *left, *right]
    far = Instruction(_JMP_JA, 0, 0, len(left))
    return [Instruction(_JMP_JGE_K, 0, 1, first), far, *left, *right]


def _leaf(rules: Sequence[Rule], default: int) -> Program:
    """The first rule whose conditions hold decides; if none does, the default."""
    program = [Instruction(_RET_K, 0, 0, default)]
    for rule in reversed(rules):
        body = [Instruction(_RET_K, 0, 0, rule.outcome)]
        for condition in reversed(rule.conditions):
            body = _test(condition, len(body)) + body
        # A rule without conditions hides those after it.
        program = body + program if rule.conditions else body
    return program


# Each operator as a comparison of the lower halves when the upper are equal, whether a greater upper half decides for
# it, and whether the whole is negated: x < y is not (x >= y).
_COMPARISONS = {
    "SCMP_CMP_EQ": (_JMP_JEQ_K, False, False),
    "SCMP_CMP_NE": (_JMP_JEQ_K, False, True),
    "SCMP_CMP_GE": (_JMP_JGE_K, True, False),
    "SCMP_CMP_LT": (_JMP_JGE_K, True, True),
    "SCMP_CMP_GT": (_JMP_JGT_K, True, False),
    "SCMP_CMP_LE": (_JMP_JGT_K, True, True),
}


def _test(condition: Condition, otherwise: int) -> Program:
    """Fall through when the condition holds, else jump over `otherwise` more. BPF has 32 bits: compare halves."""
    low_offset = _ARGUMENTS_OFFSET + 8 * condition.argument
    high, low = condition.value >> 32 & 0xFFFFFFFF, condition.value & 0xFFFFFFFF
    if otherwise + 5 > _FARTHEST_CONDITIONAL_JUMP:
        raise ValueError("a seccomp rule has too many conditions")
    if condition.operator == "SCMP_CMP_MASKED_EQ":
        return [
            Instruction(_LD_W_ABS, 0, 0, low_offset + 4),
            Instruction(_ALU_AND_K, 0, 0, condition.mask >> 32 & 0xFFFFFFFF),
            Instruction(_JMP_JEQ_K, 0, 3 + otherwise, high),
            Instruction(_LD_W_ABS, 0, 0, low_offset),
            Instruction(_ALU_AND_K, 0, 0, condition.mask & 0xFFFFFFFF),
            Instruction(_JMP_JEQ_K, 0, otherwise, low),
        ]
    compare_low, greater_decides, negated = _COMPARISONS[condition.operator]
    true, false = (otherwise, 0) if negated else (0, otherwise)
    return [
        Instruction(_LD_W_ABS, 0, 0, low_offset + 4),
        Instruction(_JMP_JGT_K, 3 + (true if greater_decides else false), 0, high),
        Instruction(_JMP_JEQ_K, 0, 2 + false, high),
        Instruction(_LD_W_ABS, 0, 0, low_offset),
        Instruction(compare_low, true, false, low),
    ]
