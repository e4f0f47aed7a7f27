"""The device program of cgroup v2 decides as it should, run by an interpreter of the few instructions it uses."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from real_engine.linux.device_filter import device_program
from real_engine.linux.devices import DeviceRule

CHARACTER, BLOCK = 2, 1
KINDS = {"c": CHARACTER, "b": BLOCK}
ACCESS = {"m": 1, "r": 2, "w": 4}
NUMBER = st.integers(0, 4)  # few, so that rules and devices often meet
RULES = st.lists(
    st.builds(
        DeviceRule,
        st.sampled_from("abc"),
        st.none() | NUMBER,
        st.none() | NUMBER,
        st.sampled_from(["r", "w", "m", "rw", "rm", "rwm"]),
    ),
    max_size=12,
)


def decide(program: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """Run the program on a `struct bpf_cgroup_dev_ctx`; returns r0 at the exit."""
    context = struct.pack("=III", access << 16 | kind, major, minor)
    instructions = list(struct.iter_unpack("=BBhi", program))
    registers, place = [0] * 11, 0
    while True:
        code, both, offset, constant = instructions[place]
        destination = both & 0xF
        place += 1
        match code:
            case 0x61:
                registers[destination] = int.from_bytes(context[offset : offset + 4], "little")
            case 0x57:
                registers[destination] &= constant
            case 0xBF:
                registers[destination] = registers[both >> 4]
            case 0x77:
                registers[destination] >>= constant
            case 0xB7:
                registers[destination] = constant
            case 0x55:
                place += offset if registers[destination] != constant else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"no such instruction: {code:#x}")


@given(
    rules=RULES, kind=st.sampled_from("cb"), access=st.sampled_from(["r", "w", "m", "rw"]), major=NUMBER, minor=NUMBER
)
def test_exactly_what_one_of_the_rules_allows(rules, kind, access, major, minor):
    allowed = any(
        rule.kind in ("a", kind)
        and rule.major in (None, major)
        and rule.minor in (None, minor)
        and set(access) <= set(rule.access)
        for rule in rules
    )
    bits = sum(ACCESS[letter] for letter in access)
    assert int(allowed) == decide(device_program(rules), KINDS[kind], bits, major, minor)


@given(rules=RULES)
def test_a_rule_reads_as_it_is_written(rules):
    assert rules == [DeviceRule.parse(str(rule)) for rule in rules]
