"""The filter decides as the profile says: every compiled program is run by an interpreter of the kernel's rules."""

import errno
import json
import platform
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.linux import seccomp

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
MACHINES = ("x86_64", "aarch64")
PROFILE = json.loads((Path(seccomp.__file__).parents[1] / "container/seccomp_default.json").read_text())
KERNEL = (6, 1)
WORD = st.integers(0, 2**64 - 1)
# Near one another and near the border of the halves, where a comparison can go wrong.
EDGE = st.one_of(WORD, st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1]))


def decide(program: seccomp.Program, machine: str, number: int, arguments: tuple[int, ...] = (0,) * 6) -> int:
    """Run a filter as the kernel does (Documentation/networking/filter.rst), on one `struct seccomp_data`."""
    data = number.to_bytes(4, "little") + seccomp.AUDIT_ARCH[machine].to_bytes(4, "little") + bytes(8)
    data += b"".join(argument.to_bytes(8, "little") for argument in (*arguments, *(0,) * 6)[:6])
    return interpret(program, data)


def interpret(program: seccomp.Program, data: bytes) -> int:
    accumulator, place = 0, 0
    while True:
        code, true, false, constant = program[place]
        place += 1
        match code:
            case 0x20:  # ld
                accumulator = int.from_bytes(data[constant : constant + 4], "little")
            case 0x54:  # and
                accumulator &= constant
            case 0x05:  # ja
                place += constant
            case 0x15:  # jeq
                place += true if accumulator == constant else false
            case 0x25:  # jgt
                place += true if accumulator > constant else false
            case 0x35:  # jge
                place += true if accumulator >= constant else false
            case 0x06:  # ret
                return constant
            case _:
                raise AssertionError(f"no such instruction: {code:#x}")


def compiled(machine: str, *capabilities: str) -> seccomp.Program:
    return seccomp.compile_profile(PROFILE, frozenset(capabilities), machine, KERNEL)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_is_allowed_if_and_only_if_the_profile_names_it(machine):
    program = compiled(machine)
    numbers = seccomp.syscall_numbers(machine)
    free = set(PROFILE["syscalls"][0]["names"])
    conditional = {"clone", "clone3", "personality", "socket"}
    for name, number in numbers.items():
        if name not in conditional:
            assert (ALLOW if name in free else EPERM) == decide(program, machine, number), name
    known = set(numbers.values())
    for number in (*range(600), 2**30, 2**31, 2**32 - 1):  # 2**30 is the bit of the x32 calls
        if number not in known:
            assert EPERM == decide(program, machine, number), number


@pytest.mark.parametrize("machine", MACHINES)
@given(flags=WORD)
def test_clone_makes_processes_and_no_namespaces(machine, flags):
    number = seccomp.syscall_numbers(machine)["clone"]
    new_namespace = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
    assert (EPERM if flags & new_namespace else ALLOW) == decide(compiled(machine), machine, number, (flags,))
    assert ALLOW == decide(compiled(machine, "CAP_SYS_ADMIN"), machine, number, (flags,))


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_with_conditions(machine):
    numbers, program = seccomp.syscall_numbers(machine), compiled(machine)
    assert ENOSYS == decide(program, machine, numbers["clone3"])
    assert ALLOW == decide(compiled(machine, "CAP_SYS_ADMIN"), machine, numbers["clone3"])
    assert EPERM == decide(program, machine, numbers["socket"], (40,))
    assert ALLOW == decide(program, machine, numbers["socket"], (2,))
    assert ALLOW == decide(program, machine, numbers["personality"], (0xFFFFFFFF,))
    assert EPERM == decide(program, machine, numbers["personality"], (0x0400000,))
    assert EPERM == decide(program, machine, numbers["personality"], (0xFFFFFFFF_00000000,))


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architecture_is_killed(machine):
    other = next(value for name, value in seccomp.AUDIT_ARCH.items() if name != machine)
    assert KILL == interpret(compiled(machine), bytes(4) + other.to_bytes(4, "little") + bytes(56))


COMPARE = {
    "SCMP_CMP_EQ": lambda x, y: x == y,
    "SCMP_CMP_NE": lambda x, y: x != y,
    "SCMP_CMP_LT": lambda x, y: x < y,
    "SCMP_CMP_LE": lambda x, y: x <= y,
    "SCMP_CMP_GT": lambda x, y: x > y,
    "SCMP_CMP_GE": lambda x, y: x >= y,
}


@given(
    operators=st.lists(st.sampled_from(sorted(COMPARE)), min_size=1, max_size=3),
    values=st.tuples(EDGE, EDGE, EDGE),
    arguments=st.tuples(EDGE, EDGE, EDGE),
    equal=st.booleans(),
)
def test_comparisons_are_those_of_64_bits(operators, values, arguments, equal):
    arguments = values if equal else arguments
    rule = {
        "names": ["read"],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": i, "value": values[i], "op": operator} for i, operator in enumerate(operators)],
    }
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}
    program = seccomp.compile_profile(profile, frozenset(), "x86_64", KERNEL)
    holds = all(COMPARE[operator](arguments[i], values[i]) for i, operator in enumerate(operators))
    assert (ALLOW if holds else EPERM) == decide(program, "x86_64", 0, arguments)


@given(mask=EDGE, value=EDGE, argument=EDGE)
def test_masked_comparison(mask, value, argument):
    condition = {"index": 5, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
    rule = {"names": ["write"], "action": "SCMP_ACT_ALLOW", "args": [condition]}
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}
    program = seccomp.compile_profile(profile, frozenset(), "x86_64", KERNEL)
    expected = ALLOW if argument & mask == value else EPERM
    assert expected == decide(program, "x86_64", 1, (0, 0, 0, 0, 0, argument))


@given(st.dictionaries(st.sampled_from(sorted(seccomp.syscall_numbers("x86_64"))), st.integers(1, 4000), max_size=300))
def test_any_mixture_of_outcomes_is_found_by_the_search(outcomes):
    """Long programs, whose jumps don't fit into 8 bits."""
    rules = [{"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": number} for name, number in outcomes.items()]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    program = seccomp.compile_profile(profile, frozenset(), "x86_64", KERNEL)
    assert all(instruction.jump_true < 256 and instruction.jump_false < 256 for instruction in program)
    for name, number in seccomp.syscall_numbers("x86_64").items():
        expected = 0x00050000 | outcomes[name] if name in outcomes else ALLOW
        assert expected == decide(program, "x86_64", number)


def test_rules_may_depend_on_architecture_and_kernel():
    rules = [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        {"names": ["write"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
        {
            "names": ["close"],
            "action": "SCMP_ACT_ALLOW",
            "includes": {"minKernel": "4.8"},
            "excludes": {"arches": ["s390x"]},
        },
        {"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
        {"names": ["no_such_call"], "action": "SCMP_ACT_ALLOW"},
    ]
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": rules}
    program = seccomp.compile_profile(profile, frozenset(), "x86_64", KERNEL)
    numbers = seccomp.syscall_numbers("x86_64")
    outcomes = [decide(program, "x86_64", numbers[name]) for name in ("read", "write", "close", "lseek")]
    assert [ENOSYS, ENOSYS, ALLOW, ENOSYS] == outcomes


def test_the_filter_is_small_and_its_paths_are_short():
    """The kernel walks it for each call number when it is installed, and for each call that isn't always allowed."""
    program = compiled("x86_64")
    assert len(program) < 256


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({}, "not a seccomp profile: KeyError 'defaultAction'"),
        ([], "not a seccomp profile"),
        ({"defaultAction": "SCMP_ACT_MAYBE"}, "unknown seccomp action 'SCMP_ACT_MAYBE'"),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_LOG"}]},
            "not a seccomp profile: KeyError",
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {
                        "names": ["read"],
                        "action": "SCMP_ACT_LOG",
                        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_ISH"}],
                    }
                ],
            },
            "unknown seccomp operator 'SCMP_CMP_ISH'",
        ),
    ],
)
def test_what_is_no_profile_is_refused(profile, message):
    with pytest.raises(ValueError, match=message):
        seccomp.compile_profile(profile, frozenset(), "x86_64", KERNEL)


def test_unknown_machines_are_named():
    with pytest.raises(ValueError, match="no system call numbers for pdp11"):
        seccomp.syscall_numbers("pdp11")


@pytest.mark.skipif(platform.machine() not in MACHINES, reason="no seccomp profile is made for this architecture")
def test_the_default_profile_compiles_for_this_machine():
    path = Path(seccomp.__file__).parents[1] / "container/seccomp_default.json"
    first = seccomp.compile_profile_file(path, frozenset())
    assert first is seccomp.compile_profile_file(path, frozenset())
    assert 8 * len(compiled(platform.machine())) == len(first)


def test_the_profile_names_only_calls_that_exist():
    known = set(seccomp.syscall_numbers("x86_64")) | set(seccomp.syscall_numbers("aarch64"))
    assert set() == {name for rule in PROFILE["syscalls"] for name in rule["names"]} - known


def test_a_profile_that_only_forbids_is_not_evaded_by_x32():
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
    program = seccomp.compile_profile(profile, frozenset(), "x86_64", (6, 0))
    chmod = seccomp.syscall_numbers("x86_64")["chmod"]
    assert EPERM == decide(program, "x86_64", chmod)
    assert ALLOW == decide(program, "x86_64", chmod + 1)
    for number in (chmod, 0, 511):
        assert 0x00050000 | errno.ENOSYS == decide(program, "x86_64", 0x40000000 | number)
    without = seccomp.compile_profile(profile, frozenset(), "aarch64", (6, 0))
    assert ALLOW == decide(without, "aarch64", 0x40000000)
