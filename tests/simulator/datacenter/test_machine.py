"""A machine: computing that can be interrupted, and locks that let one in at a time."""

import pytest
import simpy
from pydantic import ValidationError

from simulator.datacenter.machine import Machine, MachineSpec


@pytest.fixture
def env():
    return simpy.Environment()


@pytest.fixture
def machine(env):
    return Machine(env, MachineSpec(cores=2), "m0")


def test_computing_takes_its_seconds_on_an_idle_machine(env, machine):
    def work():
        return (yield from machine.compute(1.5))

    assert env.run(env.process(work())) == 1.5


def test_interrupting_takes_the_work_off_the_cores(env, machine):
    def work():
        yield from machine.compute(10)

    def other():
        return (yield from machine.compute(4))

    processes = [env.process(work()) for _ in range(3)]
    remains = env.process(other())

    def stop():
        yield env.timeout(2)
        for process in processes:
            process.interrupt()

    for process in processes:
        process.defused = True
    env.process(stop())
    # Four jobs on two cores until 2: one second's work is done each; then the last one has a core to itself.
    assert env.run(remains) == pytest.approx(2 + 3)
    assert machine.cores.active == 0


def test_a_lock_lets_one_in_at_a_time_in_the_order_of_asking(env, machine):
    entered = []

    def hold(name, at):
        yield env.timeout(at)
        with machine.lock("rtnl").request() as held:
            yield held
            entered.append((name, env.now))
            yield env.timeout(5)

    for name, at in (("third", 2), ("first", 0), ("second", 1)):
        env.process(hold(name, at))
    env.run()
    assert entered == [("first", 0), ("second", 5), ("third", 10)]


def test_locks_of_different_names_do_not_wait_for_each_other(machine):
    assert machine.lock("rtnl") is machine.lock("rtnl")
    assert machine.lock("rtnl") is not machine.lock("mount")


def test_what_the_host_keeps_is_not_for_instances():
    assert MachineSpec(memory_bytes=100, reserved_bytes=30).usable_bytes == 70
    assert MachineSpec(memory_bytes=100, reserved_bytes=300).usable_bytes == 0


@pytest.mark.parametrize(
    "wrong", [{"cores": 0}, {"memory_bytes": -1}, {"speed_when_busy": {"fork": (0.0,)}}, {"core": 2}]
)
def test_an_impossible_machine_is_refused(wrong):
    with pytest.raises(ValidationError):
        MachineSpec(**wrong)


def test_a_machine_stands_in_the_zone_of_its_record_unless_it_is_told_another(env):
    spec = MachineSpec(zone="east")
    assert "east" == Machine(env, spec, "m0").zone
    assert "west" == Machine(env, spec, "m1", zone="west").zone


def test_a_disk_does_as_many_operations_as_felter_counted(env):
    """84,044 random reads of 4 KiB per second, and 807 MB/s of long ones (Felter, native)."""
    disk = Machine(env, MachineSpec(), "m0").disk
    mib = 2**20
    assert 1.0 == pytest.approx(disk.seconds(84044 * 4096 / mib, 84044))
    assert 1.0 == pytest.approx(disk.seconds(807e6 / mib))


def test_reads_share_the_disk_and_a_slow_disk_is_slow_for_all(env):
    machine = Machine(env, MachineSpec(disk_mib_per_second=100, disk_operation_seconds=0.01), "m0")

    def read(mib, operations):
        yield machine.disk.submit(mib, operations)
        return env.now

    long, short = env.process(read(100, 0)), env.process(read(0, 50))

    def slow_down():
        yield env.timeout(1)  # by then the 0.5 s of device time of the short one are done
        machine.disk.set_speed(0.25)

    env.process(slow_down())
    env.run()
    assert [3.0, 1.0] == pytest.approx([long.value, short.value])
    assert machine.disk.busy_seconds == pytest.approx(1.5)


@pytest.mark.parametrize("spec", [{"disk_mib_per_second": 0}, {"link_mib_per_second": 0}, {"parallel_downloads": 0}])
def test_a_machine_without_a_disk_or_a_link_is_refused(spec):
    with pytest.raises(ValidationError):
        MachineSpec(**spec)
