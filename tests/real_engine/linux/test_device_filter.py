"""The device program of cgroup v2 decides as it should, run by an interpreter of the few instructions it uses."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from real_engine.linux.device_filter import device_program

CHARACTER, BLOCK = 2, 1
NUMBER = st.integers(0, 300)
DEVICES = st.lists(st.tuples(NUMBER, st.none() | NUMBER), max_size=12)


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
            case 0xB7:
                registers[destination] = constant
            case 0x55:
                place += offset if registers[destination] != constant else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"no such instruction: {code:#x}")


@given(devices=DEVICES, access=st.integers(1, 7), major=NUMBER, minor=NUMBER)
def test_exactly_the_listed_character_devices(devices, access, major, minor):
    program = device_program(devices)
    listed = (major, minor) in devices or (major, None) in devices
    assert int(listed) == decide(program, CHARACTER, access, major, minor)
    assert 0 == decide(program, BLOCK, access, major, minor)


@given(devices=DEVICES.filter(bool), access=st.integers(1, 7))
def test_every_listed_device(devices, access):
    for major, minor in devices:
        assert 1 == decide(device_program(devices), CHARACTER, access, major, 7 if minor is None else minor)
