"""A specification crosses to another process as JSON, and is the same there."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.container.plain import from_plain, to_plain
from real_engine.container.resources import PROPAGATIONS, ULIMITS
from real_engine.container.spec import ContainerSpec, Device, DeviceRate, ExecSpec, Limits, Mount, Ulimit
from real_engine.errors import InvalidParameter

TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=()), max_size=8)  # lone surrogates too
PATH = st.lists(st.sampled_from(["a", "bin", "데이터", "x y"]), min_size=1, max_size=3).map(
    lambda names: "/" + "/".join(names)
)
ENVIRONMENT = st.dictionaries(st.sampled_from(["A", "HOME", "이름"]), TEXT, max_size=3)
RATES = st.lists(st.builds(DeviceRate, PATH, st.integers(1, 1 << 40)), max_size=2).map(tuple)
LIMITS = st.builds(
    Limits,
    memory_bytes=st.none() | st.integers(6 << 20, 1 << 40),
    cpus=st.none() | st.floats(0.01, 64),
    pids=st.none() | st.just(-1) | st.integers(1, 99),
    memory_swap_bytes=st.none() | st.just(-1),
    memory_swappiness=st.none() | st.integers(0, 100),
    oom_kill_disable=st.booleans(),
    cpu_shares=st.none() | st.integers(2, 1024),
    cpuset_cpus=st.sampled_from(["", "0", "0-1"]),
    blkio_weight=st.none() | st.integers(10, 1000),
    read_bytes_per_second=RATES,
)
MOUNTS = st.builds(
    Mount,
    st.sampled_from(["bind", "tmpfs", "mqueue"]),
    PATH,
    source=PATH,
    read_only=st.booleans(),
    recursive=st.booleans(),
    propagation=st.sampled_from(PROPAGATIONS),
    noexec=st.booleans(),
    options=st.dictionaries(st.sampled_from(["size", "mode"]), st.sampled_from(["1m", "755"])),
)
ULIMIT = st.tuples(st.sampled_from(sorted(ULIMITS)), st.integers(0, 99), st.integers(99, 1 << 60)).map(
    lambda parts: Ulimit(*parts)
)
SPECS = st.builds(
    ContainerSpec,
    layers=st.lists(PATH.map(Path), min_size=1, max_size=3).map(tuple),
    argv=st.lists(TEXT, max_size=3).map(lambda more: ("program", *more)),
    environment=ENVIRONMENT,
    limits=LIMITS,
    network=st.sampled_from(["none", "private", "host", "/proc/1/ns/net"]),
    read_only=st.booleans(),
    mounts=st.lists(MOUNTS, max_size=2).map(tuple),
    devices=st.lists(st.builds(Device, PATH, PATH, st.sampled_from(["r", "rw", "rwm"])), max_size=2).map(tuple),
    ulimits=st.lists(ULIMIT, max_size=2).map(tuple),
    masked_paths=st.none() | st.lists(PATH, max_size=2).map(tuple),
    sysctls=st.just({}) | st.just({"fs.mqueue.msg_max": "5"}),
    no_new_privileges=st.booleans(),
    tty=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(SPECS)
def test_a_container_there_and_back(spec):
    assert spec == ContainerSpec.from_json(json.loads(json.dumps(spec.to_json())))


@settings(max_examples=30, deadline=None)
@given(st.builds(ExecSpec, argv=st.just(("x",)), environment=ENVIRONMENT, user=st.just("me"), tty=st.booleans()))
def test_a_program_there_and_back(spec):
    assert spec == ExecSpec.from_json(json.loads(json.dumps(spec.to_json())))


@given(LIMITS)
def test_what_is_as_by_default_is_left_out(limits):
    plain = to_plain(limits)
    assert {field.name for field in fields(Limits) if getattr(limits, field.name) != field.default} == plain.keys()
    assert limits == from_plain(Limits, plain)


def test_every_kind_of_value_has_its_way_back():
    upper = {"upper": Path("/u"), "work": Path("/w"), "masked_paths": ()}
    spec = ContainerSpec((Path("/l"),), ("x",), **upper)
    assert ({"layers": ["/l"], "argv": ["x"], "upper": "/u", "work": "/w", "masked_paths": []}, spec) == (
        spec.to_json(),
        ContainerSpec.from_json(spec.to_json()),
    )


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ([], "an object is expected, not list"),
        ({"layers": ["/"], "argv": ["x"], "colour": 1}, "ContainerSpec has no field `colour`"),
        ({"argv": ["x"]}, "layers"),
        ({"layers": "/", "argv": ["x"]}, "another type"),
        ({"layers": ["/"], "argv": [1]}, "another type"),
        ({"layers": ["/"], "argv": ["x"], "tty": 1}, "another type"),
        ({"layers": ["/"], "argv": ["x"], "limits": {"pids": True}}, "another type"),
    ],
)
def test_what_is_no_specification(plain, message):
    with pytest.raises(InvalidParameter, match=message):
        ContainerSpec.from_json(plain)
