"""Calibration recovers a truth that it does not know, and looks only at what it may fit."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError
from simulator.evidence.calibration import calibrate, calibrate_all, fit_machine, heading
from simulator.evidence.measurements import Subject, read_measurements
from simulator.evidence.validation import validate

CONTAINER = Subject("container", "default")


@pytest.fixture
def fitted(measured):
    return calibrate(read_measurements(measured), CONTAINER, PlatformProfile.from_toml("container"))


def test_the_truth_lies_within_the_intervals(fitted, truth):
    total = fitted.startup.total_seconds
    assert total.low <= sum(cpu + fixed for _, cpu, fixed in truth.phases) <= total.high
    for known, quantity in (
        (truth.private, fitted.memory.private_bytes),
        (truth.shared, fitted.memory.shared_bytes),
        (truth.kernel, fitted.memory.kernel_bytes),
    ):
        assert quantity.low <= known <= quantity.high
        assert quantity.kind == "measured"
        assert "made-up/memory.csv" in quantity.source


def test_intervals_hold_the_truth_about_as_often_as_they_say(measure, truth):
    """20 measurements of the same truth: all misses but for a few would be too wide, many misses too narrow."""
    held = 0
    for seed in range(20):
        total = calibrate_all(read_measurements(measure(truth, seed)))["container"].startup.total_seconds
        held += total.low <= sum(cpu + fixed for _, cpu, fixed in truth.phases) <= total.high
    assert held >= 16  # 95 % of 20 is 19; fewer than 16 would happen once in 400


def test_phases_are_recovered_in_order_and_add_up_to_the_total(fitted, truth):
    assert [name for name, _, _ in truth.phases] == [phase.name for phase in fitted.startup.phases]
    for (_, cpu, fixed), phase in zip(truth.phases, fitted.startup.phases, strict=True):
        assert cpu == pytest.approx(phase.cpu_seconds, rel=0.05)
        assert fixed == pytest.approx(phase.fixed_seconds, rel=0.1, abs=1e-9)
        assert phase.work == "fork"
    total = sum(phase.cpu_seconds + phase.fixed_seconds for phase in fitted.startup.phases)
    assert fitted.startup.total_seconds.value == pytest.approx(total, rel=1e-4)


def test_what_was_not_measured_is_kept(fitted):
    described = PlatformProfile.from_toml("container")
    assert described.overhead == fitted.overhead
    assert (described.label_ko, described.bridge_ports) == (fitted.label_ko, fitted.bridge_ports)


def test_a_guest_is_carried_over_and_made_to_fit(measured):
    """The made-up instance needs 500 kB, far less than the parts of a guest of 164 MB."""
    described = PlatformProfile.from_toml("vm-kvm")
    fitted = calibrate(read_measurements(measured), CONTAINER, described)
    private = fitted.memory.private_bytes.value
    share = described.guest.vmm_mib * 2**20 / described.memory.private_bytes.value
    assert share == pytest.approx(fitted.guest.vmm_mib * 2**20 / private, rel=1e-4)
    assert (fitted.guest.vmm_mib + fitted.guest.kernel_mib) * 2**20 < private
    assert "smaller in the proportion" in fitted.guest.source
    assert fitted.shares_host_kernel == described.shares_host_kernel


def test_the_machine_is_fitted_from_work_that_is_no_start_up(measured, truth):
    machine = fit_machine(read_measurements(measured))
    assert machine.cores == 2
    np.testing.assert_allclose(machine.speed_when_busy["fork"], (1.0, truth.fork_speed), rtol=1e-4)
    np.testing.assert_allclose(machine.speed_when_busy["compute"], (1.0, 1.0))


def test_contention_and_larger_numbers_are_not_looked_at(measured, measure, truth):
    """Had the rest of the real thing been otherwise, the profile would be the same: that is what makes it a test."""
    directory = measure(truth)
    path = directory / "contention.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    path = directory / "memory.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if line.split(",")[3] not in ("32", "64")))
    subset = read_measurements(directory)
    assert calibrate_all(read_measurements(measured)) == calibrate_all(subset)
    assert fit_machine(read_measurements(measured)) == fit_machine(subset)


def test_a_phase_with_more_cpu_than_wall_clock_kept_a_second_core_busy(measure, truth):
    directory = measure(replace(truth, noise=0.0))
    path = directory / "startup.csv"
    path.write_text(path.read_text().replace("clone,cpu,0.002", "clone,cpu,0.003"))
    (clone, *_) = calibrate_all(read_measurements(directory))["container"].startup.phases
    assert (0.002, 0.001, 0.0) == pytest.approx((clone.cpu_seconds, clone.parallel_cpu_seconds, clone.fixed_seconds))


def test_cpu_time_that_is_booked_late_is_not_lost(measure, truth):
    """A parent that waits while its child works, whose clock it can read only afterwards."""
    directory = measure(replace(truth, noise=0.0, phases=(("spawn", 0.004, 0.0), ("exec", 0.001, 0.0))))
    path = directory / "startup.csv"
    text = path.read_text().replace("spawn,cpu,0.004", "spawn,cpu,0.0005").replace("exec,cpu,0.001", "exec,cpu,0.0045")
    path.write_text(text)
    spawn, run = calibrate_all(read_measurements(directory))["container"].startup.phases
    work = sum(phase.cpu_seconds + phase.parallel_cpu_seconds for phase in (spawn, run))
    assert work == pytest.approx(0.005)
    assert (0.003, 0.001) == pytest.approx((spawn.cpu_seconds, spawn.fixed_seconds))


def test_memory_that_is_not_shared_is_not_fitted_below_zero(measure, truth):
    memory = calibrate_all(read_measurements(measure(replace(truth, shared=0.0, noise=0.2))))["container"].memory
    assert memory.shared_bytes.low >= 0
    assert memory.private_bytes.low <= truth.private <= memory.private_bytes.high


def test_of_several_variants_the_plainest_stands_for_the_platform(measure, truth):
    directory = measure(replace(truth, platform="vm-tcg", variant="microvm"))
    for name in ("startup", "memory"):
        path = directory / f"{name}.csv"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines, *(line.replace("microvm", "q35") for line in lines[1:])]))
    profiles = calibrate_all(read_measurements(directory))
    assert list(profiles) == ["vm-tcg"]
    assert "vm-tcg (microvm)" in profiles["vm-tcg"].startup.total_seconds.source
    # The device model is started by the kernel, the guest runs on its own.
    assert {phase.work for phase in profiles["vm-tcg"].startup.phases} == {"compute"}


def test_a_profile_is_written_exactly(fitted, measured, tmp_path):
    path = tmp_path / "container.toml"
    path.write_text(fitted.to_toml(heading(read_measurements(measured))))
    assert PlatformProfile.from_toml(path) == fitted
    assert path.read_text().startswith("# Start-up and memory were fitted")


def test_a_platform_that_was_not_measured_is_named(measured):
    with pytest.raises(SimulatorError, match="no start-up of vm-kvm"):
        calibrate(read_measurements(measured), Subject("vm-kvm", "default"), PlatformProfile.from_toml("vm-kvm"))


def test_memory_of_one_number_of_instances_is_not_enough(measure):
    directory = measure()
    path = directory / "memory.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if line.split(",")[3] not in ("2", "4", "8", "16")))
    with pytest.raises(SimulatorError, match="private and shared memory cannot be told apart"):
        calibrate_all(read_measurements(directory))


def test_a_machine_that_was_never_measured_alone_is_named(measure):
    directory = measure()
    path = directory / "machine.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "default,1,fork" not in line))
    with pytest.raises(SimulatorError, match="`fork` was not measured alone"):
        validate(read_measurements(directory))
