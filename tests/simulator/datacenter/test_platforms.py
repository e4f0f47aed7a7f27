"""Platform profiles: those that ship are whole and agree with their sources, and a file says what the profile says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.datacenter.machine import MachineSpec
from simulator.datacenter.platforms import Memory, Overhead, Phase, PlatformProfile, Quantity, Startup, shipped_profiles
from simulator.datacenter.startup import predict_contention
from simulator.errors import SimulatorError
from simulator.evidence.published import read_published

SHIPPED = ("container", "process", "vm-cloud", "vm-kvm", "vm-tcg")


def test_these_platforms_ship():
    assert list(SHIPPED) == list(shipped_profiles())


@pytest.mark.parametrize("name", SHIPPED)
def test_one_alone_takes_what_the_profile_says(name):
    profile = PlatformProfile.from_toml(name)
    (alone,) = predict_contention(MachineSpec(cores=64), profile, 1)
    assert profile.startup.total_seconds.value == pytest.approx(alone, rel=1e-3)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_person_is_told_in_both_languages_and_every_number_has_its_source(name):
    profile = PlatformProfile.from_toml(name)
    assert profile.name == name
    assert any("가" <= letter <= "힣" for letter in profile.label_ko)
    quantities = [
        profile.startup.total_seconds,
        *profile.startup.phases,
        *(getattr(part, field) for part in (profile.memory, profile.overhead) for field in type(part).model_fields),
    ]
    assert all(quantity.source for quantity in quantities)


def published(name, quantity, platform, source):
    (figure,) = [f for f in read_published(name) if (f.quantity, f.platform, f.source) == (quantity, platform, source)]
    return figure.value


def test_the_vm_under_kvm_is_built_from_its_sources():
    profile = PlatformProfile.from_toml("vm-kvm")
    qemu = published("startup", "start-up", "qemu", "Firecracker-data")
    qboot = published("startup", "start-up", "qemu-qboot", "Firecracker-data")
    vmm = published("startup", "vmm", "qemu", "Unikraft-data")
    assert profile.startup.total_seconds.value == qemu
    assert [phase.cpu_seconds for phase in profile.startup.phases] == pytest.approx([vmm, qemu - qboot, qboot - vmm])
    overhead = published("memory", "vmm overhead", "qemu", "Firecracker-data")
    guest = published("memory", "all instances", "tinyx-xen", "LightVM") / 1000
    assert profile.memory.private_bytes.value == overhead + guest
    native, tuned = (published("overhead", "PXZ", platform, "Felter") for platform in ("native", "kvm-tuned"))
    assert profile.overhead.cpu_factor.value == pytest.approx(native / tuned, rel=1e-5)
    round_trips = [published("overhead", "TCP round trip", platform, "Felter") for platform in ("native", "kvm")]
    assert profile.overhead.network_seconds.value == pytest.approx(round_trips[1] - round_trips[0])


def test_the_cloud_vm_is_built_from_its_sources():
    profile = PlatformProfile.from_toml("vm-cloud")
    parts = [
        published("startup", part, "ec2", "Percival")
        for part in ("api", "pending", "running to port closed", "port closed to open")
    ]
    assert profile.startup.total_seconds.value == pytest.approx(sum(parts))
    assert [phase.cpu_seconds + phase.fixed_seconds for phase in profile.startup.phases] == pytest.approx(parts)
    assert published("memory", "guest", "debian-xen", "LightVM") + published(
        "memory", "vmm overhead", "qemu", "Firecracker-data"
    ) == pytest.approx(profile.memory.private_bytes.value)


def test_an_interval_must_hold_its_value():
    with pytest.raises(ValueError, match="must hold"):
        Quantity(value=3, low=4, high=5, kind="measured", source="test")


def test_a_typo_in_a_profile_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(PlatformProfile.from_toml("container").to_toml().replace("bridge_ports", "bridge_port"))
    with pytest.raises(SimulatorError, match="`bridge_port`: did you mean `bridge_ports`"):
        PlatformProfile.from_toml(path)


def test_no_such_profile_lists_those_that_ship():
    with pytest.raises(SimulatorError, match=", ".join(SHIPPED)):
        PlatformProfile.from_toml("vmware")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
amounts = st.floats(0, 1e12)
kinds = st.sampled_from(["measured", "simulated", "published"])


@st.composite
def quantities(draw):
    low, value, high = sorted(draw(st.tuples(amounts, amounts, amounts)))
    return Quantity(value=value, low=low, high=high, kind=draw(kinds), source=draw(texts))


@st.composite
def phases(draw):
    parallel, cpu = sorted(draw(st.tuples(amounts, amounts)))
    return Phase(
        name=draw(texts),
        cpu_seconds=cpu,
        parallel_cpu_seconds=parallel,
        work=draw(st.sampled_from(["compute", "fork"])),
        lock=draw(st.none() | texts),
        fixed_seconds=draw(amounts),
        kind=draw(kinds),
        source=draw(texts),
    )


profiles = st.builds(
    PlatformProfile,
    name=st.from_regex(r"\A[a-z][a-z0-9-]*\Z"),
    label_en=texts,
    label_ko=texts,
    about=texts,
    startup=st.builds(
        Startup, total_seconds=quantities(), phases=st.lists(phases(), min_size=1, max_size=3).map(tuple)
    ),
    memory=st.builds(Memory, private_bytes=quantities(), shared_bytes=quantities(), kernel_bytes=quantities()),
    overhead=st.builds(Overhead, cpu_factor=quantities(), network_seconds=quantities()),
    bridge_ports=st.none() | st.integers(1, 5000),
    pids_per_instance=st.integers(1, 100),
)


@given(profile=profiles, heading=st.sampled_from(["", "one line", "two\nlines"]))
def test_a_profile_comes_back_from_its_file_exactly(tmp_path_factory, profile, heading):
    path = tmp_path_factory.getbasetemp() / "profile.toml"
    path.write_text(profile.to_toml(heading), encoding="utf-8", newline="")
    assert PlatformProfile.from_toml(path) == profile
