"""Platform profiles: those that ship are whole and agree with their sources, and a file says what the profile says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.datacenter.guests import GuestMemory
from simulator.datacenter.machine import MachineSpec
from simulator.datacenter.memory.parts import InstanceMemory, parts_of
from simulator.datacenter.platforms import Memory, Overhead, Phase, PlatformProfile, Quantity, Startup, shipped_profiles
from simulator.datacenter.startup import predict_contention
from simulator.errors import SimulatorError
from simulator.evidence.published import read_published

SHIPPED = (
    "container", "container-dockerd", "container-gvisor", "microvm-firecracker", "process", "unikernel", "vm-cloud",
    "vm-kvm", "vm-tcg",
)  # fmt: skip


def test_these_platforms_ship():
    assert list(SHIPPED) == list(shipped_profiles())


@pytest.mark.parametrize("name", SHIPPED)
def test_one_alone_takes_what_the_profile_says(name):
    profile = PlatformProfile.from_toml(name)
    (alone,) = predict_contention(MachineSpec(cores=64), profile, 1)
    assert profile.startup.total_seconds.value == pytest.approx(alone, rel=1e-3)
    if profile.snapshot is not None:
        restored = sum(phase.cpu_seconds + phase.fixed_seconds for phase in profile.snapshot.phases)
        assert profile.snapshot.total_seconds.value == pytest.approx(restored, rel=1e-3)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_person_is_told_in_both_languages_and_every_number_has_its_source(name):
    profile = PlatformProfile.from_toml(name)
    assert profile.name == name
    assert any("가" <= letter <= "힣" for letter in profile.label_ko)
    sources = list(every_source(profile.model_dump(exclude_none=True)))
    assert len(sources) >= 7
    assert all(sources)


def every_source(tree):
    """The source of each record that has a kind, and so must have one."""
    if isinstance(tree, dict):
        if "kind" in tree:
            yield tree["source"]
        tree = tuple(tree.values())
    if isinstance(tree, tuple):
        for part in tree:
            yield from every_source(part)


def published(name, quantity, platform, source, **conditions):
    (figure,) = [
        f
        for f in read_published(name)
        if (f.quantity, f.platform, f.source) == (quantity, platform, source)
        and conditions.items() <= f.conditions.items()
    ]
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


def test_docker_is_built_from_its_sources():
    profile = PlatformProfile.from_toml("container-dockerd")
    few, many = (published("curves", "start-up", "docker", "LightVM", guests_running=count) for count in ("5", "400"))
    (phase,) = profile.startup.phases
    assert (few, many) == pytest.approx([phase.cpu_seconds_beside(5), phase.cpu_seconds_beside(400)], rel=1e-5)
    private = profile.memory.private_bytes
    assert published("memory", "sandbox", "runc", "Runtimes-data") == private.value
    assert published("memory", "sandbox", "runc", "gVisor-data", program="none") == private.low
    assert published("overhead", "TCP round trip", "native", "Felter") == profile.overhead.network_seconds.value


def test_gvisor_is_built_from_its_sources():
    profile = PlatformProfile.from_toml("container-gvisor")
    runc, systrap, kvm = (
        published("startup", "start-up", platform, "Runtimes-data")
        for platform in ("runc", "gvisor-systrap", "gvisor-kvm")
    )
    assert (systrap, kvm) == (profile.startup.total_seconds.value, profile.startup.total_seconds.high)
    assert [runc, systrap - runc] == pytest.approx([phase.cpu_seconds for phase in profile.startup.phases])
    private = profile.memory.private_bytes
    assert published("memory", "sandbox", "gvisor-systrap", "Runtimes-data") == private.value
    assert published("memory", "sandbox", "gvisor-kvm", "Runtimes-data") == private.high


def test_firecracker_is_built_from_its_sources():
    profile = PlatformProfile.from_toml("microvm-firecracker")
    whole, configured = (
        published("startup", "start-up", platform, "Firecracker-data")
        for platform in ("firecracker", "firecracker-preconfigured")
    )
    vmm = published("startup", "vmm", "firecracker", "Firecracker-spec")
    assert (whole, configured) == (profile.startup.total_seconds.value, profile.startup.total_seconds.low)
    assert [vmm, whole - configured, configured - vmm] == pytest.approx(
        [phase.cpu_seconds for phase in profile.startup.phases]
    )
    load = published("startup", "load snapshot", "firecracker", "Firecracker-tests", linux="4.14")
    assert vmm + load == pytest.approx(profile.snapshot.total_seconds.value)
    # All of it is taken as CPU time, so at most 5 start per core and second, which is what is published.
    rate = published("startup", "creation rate", "firecracker", "Firecracker-spec")
    assert rate / 2 < 1 / profile.startup.total_seconds.value < rate * 2
    overhead = published("memory", "vmm overhead", "firecracker", "Firecracker-data")
    assert overhead + published("memory", "all instances", "tinyx-xen", "LightVM") / 1000 == pytest.approx(
        profile.memory.private_bytes.value
    )
    reads = [
        published("overhead", "random read 4k", platform, "Firecracker-data") for platform in ("firecracker", "native")
    ]
    assert 1 / reads[0] - 1 / reads[1] == pytest.approx(profile.overhead.io_operation_seconds.value, rel=1e-5)


def test_the_unikernel_is_built_from_its_sources():
    profile = PlatformProfile.from_toml("unikernel")
    alone = published("startup", "start-up", "unikernel-lightvm", "LightVM", guests_running="1000")
    assert alone == pytest.approx(sum(phase.cpu_seconds_beside(1000) for phase in profile.startup.phases), rel=1e-3)
    without = published("startup", "start-up", "unikernel-lightvm", "LightVM", devices="0")
    assert without == profile.startup.phases[0].cpu_seconds
    assert published("startup", "restore", "unikernel-lightvm", "LightVM") == profile.snapshot.total_seconds.value
    many = published("curves", "all instances", "minipython-xen", "LightVM", instances="995")
    assert many / 995 == pytest.approx(profile.memory.private_bytes.value, rel=1e-6)


def test_containers_and_processes_share_the_kernel_of_their_machine_and_nobody_else():
    sharing = {name for name, profile in shipped_profiles().items() if profile.shares_host_kernel}
    assert {"process", "container", "container-dockerd"} == sharing
    assert not any(profile.guest for name, profile in shipped_profiles().items() if name in sharing)


@pytest.mark.parametrize("name", ["vm-kvm", "vm-tcg", "vm-cloud", "microvm-firecracker"])
def test_a_guest_is_a_part_of_its_platforms_memory(name):
    profile = PlatformProfile.from_toml(name)
    parts = parts_of(profile, 5e6, InstanceMemory(guest=profile.guest))
    assert parts.programs > parts.guest_kernel > 0
    assert parts.vmm + parts.guest_kernel + parts.programs == pytest.approx(profile.memory.private_bytes.value)
    assert profile.guest.source


@pytest.mark.parametrize(
    ("name", "vmm", "kernel"),
    [
        ("vm-kvm", "qemu", "tinyx-xen"),
        ("vm-cloud", "qemu", "debian-xen"),
        ("vm-tcg", "qemu", "debian-xen"),
        ("microvm-firecracker", "firecracker", "tinyx-xen"),
    ],
)
def test_guests_are_built_from_their_sources(name, vmm, kernel):
    guest = PlatformProfile.from_toml(name).guest
    assert published("memory", "vmm overhead", vmm, "Firecracker-data") == pytest.approx(guest.vmm_mib * 2**20)
    assert published("memory", "guest kernel", kernel, "LightVM") == pytest.approx(guest.kernel_mib * 2**20, rel=1e-5)
    if vmm == "firecracker":
        assert guest.vmm_mib * 2**20 < published("memory", "vmm overhead", vmm, "Firecracker-spec")


@given(vmm=st.floats(0, 200), kernel=st.floats(0, 50), programs=st.floats(0, 200), measured=st.floats(0, 1e9))
def test_a_guest_always_fits_into_other_private_memory(vmm, kernel, programs, measured):
    written = (vmm + kernel + programs) * 2**20
    guest = GuestMemory(vmm_mib=vmm, kernel_mib=kernel, page_cache_mib=7, source="test")
    fitted = guest.for_private(measured, written)
    assert (fitted.vmm_mib + fitted.kernel_mib) * 2**20 <= measured * (1 + 1e-5)
    assert 7 == fitted.page_cache_mib
    if (vmm + kernel) * 2**20 <= measured:
        assert guest == fitted
    else:
        assert fitted.for_private(measured, measured) == fitted or "smaller in the proportion" in fitted.source


@pytest.mark.parametrize("name", ["vm-kvm", "vm-cloud"])
def test_a_vm_pays_for_each_disk_operation_what_felter_found(name):
    cost = PlatformProfile.from_toml(name).overhead.io_operation_seconds
    kvm, native = (published("overhead", "random read 4k", platform, "Felter") for platform in ("kvm", "native"))
    assert 1 / kvm - 1 / native == pytest.approx(cost.value, rel=1e-5)
    slow, fast = (
        published("overhead", "read latency 4k depth 16", platform, "Felter") for platform in ("kvm", "native")
    )
    assert (slow - fast) / 16 == pytest.approx(cost.high)


def test_a_platform_of_ones_own_is_a_file(tmp_path):
    mine = tmp_path / "mine.toml"
    text = (
        PlatformProfile.from_toml("microvm-firecracker")
        .to_toml()
        .replace('name = "microvm-firecracker"', 'name = "mine"')
    )
    mine.write_text(text, encoding="utf-8")
    for path in (mine, str(mine)):
        assert "mine" == PlatformProfile.from_toml(path).name


def test_what_grows_with_those_that_run_grows():
    phase = Phase(
        name="list", cpu_seconds=1, cpu_seconds_per_running=0.1, cpu_seconds_per_running_squared=0.01,
        kind="published", source="test",
    )  # fmt: skip
    assert [1.0, 1.11, 3.0] == pytest.approx([phase.cpu_seconds_beside(running) for running in (0, 1, 10)])


def test_a_file_does_not_mention_what_few_platforms_have():
    text = PlatformProfile.from_toml("container").to_toml()
    for key in ("read_mib", "per_running", "snapshot", "guest", "ram_mib"):
        assert key not in text


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
        read_mib=draw(amounts),
        cpu_seconds_per_running=draw(amounts),
        cpu_seconds_per_running_squared=draw(amounts),
        kind=draw(kinds),
        source=draw(texts),
    )


startups = st.builds(Startup, total_seconds=quantities(), phases=st.lists(phases(), min_size=1, max_size=3).map(tuple))
profiles = st.builds(
    PlatformProfile,
    name=st.from_regex(r"\A[a-z][a-z0-9-]*\Z"),
    label_en=texts,
    label_ko=texts,
    about=texts,
    startup=startups,
    snapshot=st.none() | startups,
    memory=st.builds(Memory, private_bytes=quantities(), shared_bytes=quantities(), kernel_bytes=quantities()),
    overhead=st.builds(
        Overhead,
        cpu_factor=quantities(),
        network_seconds=quantities(),
        io_operation_seconds=st.none() | quantities(),
    ),
    guest=st.none()
    | st.builds(
        GuestMemory,
        vmm_mib=amounts,
        kernel_mib=amounts,
        page_cache_mib=amounts,
        free_mib=amounts,
        ram_mib=st.none() | st.floats(1, 1e6),
        kind=kinds,
        source=texts,
    ),
    shares_host_kernel=st.booleans(),
    bridge_ports=st.none() | st.integers(1, 5000),
    pids_per_instance=st.integers(1, 100),
)


@given(profile=profiles, heading=st.sampled_from(["", "one line", "two\nlines"]))
def test_a_profile_comes_back_from_its_file_exactly(tmp_path_factory, profile, heading):
    path = tmp_path_factory.getbasetemp() / "profile.toml"
    path.write_text(profile.to_toml(heading), encoding="utf-8", newline="")
    assert PlatformProfile.from_toml(path) == profile
