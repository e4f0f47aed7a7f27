"""Images on machines: what is pulled once, what two pulls share, what is evicted, and what an outage does."""

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from simulator.datacenter.failures import BackOff
from simulator.datacenter.images import ImageLayer, ImageSpec, RegistrySettings
from simulator.datacenter.links import Links
from simulator.datacenter.machine import Machine, MachineSpec
from simulator.datacenter.registry import Registry
from simulator.errors import SimulatorError
from simulator.records import validate_record


def layer(name, compressed=10.0, unpacked=20.0):
    return ImageLayer(name=name, compressed_mib=compressed, unpacked_mib=unpacked)


def image(*layers, cpu=0.0, name="image", **more):
    return ImageSpec(name=name, layers=layers, unpack_cpu_seconds_per_mib=cpu, **more)


class Room:
    """Machines with links of 10 MiB/s and disks so fast that they don't count, and a registry of 1000 MiB/s."""

    def __init__(self, machines=1, *, registry=None, **spec):
        self.env = simpy.Environment()
        network = Links(self.env)
        settings = {"link_mib_per_second": 10.0, "disk_mib_per_second": 1e12, "disk_operation_seconds": 0.0} | spec
        self.machines = [
            Machine(self.env, MachineSpec(**settings), f"m{number}", network=network) for number in range(machines)
        ]
        self.machine = self.machines[0]
        self.registry = Registry(
            self.env, network, RegistrySettings(**({"bandwidth_mib_per_second": 1000.0} | (registry or {})))
        )

    def pull(self, what, machine=None, *, at=0.0, give_up_at=None):
        """Pull; the process's value is when it was done, or None if it gave up."""

        def process():
            yield self.env.timeout(at)
            try:
                yield from (machine or self.machine).images.pull(what, self.registry)
            except simpy.Interrupt:
                return None
            return self.env.now

        pulling = self.env.process(process())

        def stop():
            yield self.env.timeout(give_up_at)
            if pulling.is_alive:
                pulling.interrupt()

        if give_up_at is not None:
            self.env.process(stop())
        return pulling


def test_a_pull_takes_what_the_link_needs_and_the_next_one_nothing():
    room = Room()
    first = room.pull(image(layer("a"), layer("b", 30)))
    second = room.pull(image(layer("a"), layer("b", 30)), at=10)
    room.env.run()
    assert 4.0 == pytest.approx(first.value)
    assert 10.0 == second.value
    assert room.machine.images.pulled_mib == 40


def test_a_layer_that_another_image_brought_is_not_pulled_again():
    room = Room()
    room.pull(image(layer("base", 50), layer("a")))
    other = room.pull(image(layer("base", 50), layer("b", 20)), at=100)
    room.env.run()
    assert 102.0 == pytest.approx(other.value)
    assert room.machine.images.used_mib == 60  # 3 layers


def test_machines_share_the_registrys_uplink():
    room = Room(4, registry={"bandwidth_mib_per_second": 20.0})
    pulls = [room.pull(image(layer("a")), machine) for machine in room.machines]
    room.env.run()
    assert [2.0] * 4 == [pytest.approx(pull.value) for pull in pulls]


def test_two_pulls_of_a_layer_share_one_download():
    room = Room()
    pulls = [room.pull(image(layer("a", 100)), at=at) for at in (0, 4)]
    room.env.run()
    assert [pytest.approx(10.0)] * 2 == [pull.value for pull in pulls]
    assert room.machine.images.pulled_mib == 100


def test_a_download_goes_on_as_long_as_one_waits_for_it():
    room = Room()
    given_up = room.pull(image(layer("a", 100)), give_up_at=5)
    joined = room.pull(image(layer("a", 100)), at=4)
    room.env.run()
    assert given_up.value is None
    assert 10.0 == pytest.approx(joined.value)


@pytest.mark.parametrize("when", [0.0, 0.5, 1.5, 2.5, 3.0])
def test_a_pull_that_is_given_up_leaves_nothing_behind(when):
    room = Room(cores=1)
    store = room.machine.images
    what = image(layer("a"), layer("b", 10, 30), cpu=0.05)  # 2 s of link; a is there at 2 s and both at about 4.5 s
    room.pull(what, give_up_at=when)
    room.env.run()
    assert (0, 0, 0) == (room.registry.network.active, room.machine.cores.active, room.machine.disk.active)
    assert store.used_mib == sum(part.unpacked_mib for part in what.layers if part not in store.missing(what))
    # Who comes next gets a whole image.
    room.env.run(room.pull(what))
    assert store.has(what)


def test_one_that_gives_up_at_the_very_moment_another_comes_does_not_take_it_along():
    room = Room()
    room.pull(image(layer("a", 100)), give_up_at=5)

    def comes_then():
        yield room.env.timeout(5)
        yield from room.machine.images.pull(image(layer("a", 100)), room.registry)
        return room.env.now

    assert room.env.run(room.env.process(comes_then())) in (pytest.approx(10.0), pytest.approx(15.0))


@pytest.mark.parametrize(("parallel", "ends"), [(1, 4.0), (3, 2.0), (4, 1.0)])
def test_so_many_layers_come_at_once_and_no_more(parallel, ends):
    # A second of latency each and a link that is no limit: what counts is how many wait at the same time.
    room = Room(registry={"latency_seconds": 1.0}, parallel_downloads=parallel, link_mib_per_second=1e9)
    pull = room.pull(image(*(layer(name, 1e-9) for name in "abcd")))
    room.env.run()
    assert ends == pytest.approx(pull.value)


def test_lower_layers_are_unpacked_first_while_upper_ones_still_come():
    # a comes at 1 s and is unpacked until 3 s, while b comes until 3 s, and is then unpacked until 4 s.
    room = Room(cores=1, parallel_downloads=1)
    room.env.run(room.pull(image(layer("a", 10, 20), layer("b", 20, 10), cpu=0.1)))
    assert room.env.now == pytest.approx(4.0)
    # The other way round: b is there first and waits for a to be unpacked.
    room = Room(cores=4)
    room.env.run(room.pull(image(layer("a", 15, 20), layer("b", 5, 10), cpu=0.1)))
    assert room.env.now == pytest.approx(2.0 + 2.0 + 1.0)


def test_unpacking_needs_a_core_and_the_disk():
    room = Room(cores=1, disk_mib_per_second=10.0)
    pull = room.pull(image(layer("a", 10, 50), cpu=0.01))

    def busy():
        yield room.machine.cores.submit(100.0)

    room.env.process(busy())
    room.env.run(pull)
    # 1 s of link; then 0.5 s of a core of which it has half, beside 5 s of disk.
    assert pull.value == pytest.approx(6.0)


def test_the_layer_used_longest_ago_goes_first_and_one_in_use_never():
    room = Room(image_cache_mib=60.0)
    store = room.machine.images
    old, middle, new, last = (image(layer(name)) for name in ("old", "middle", "new", "last"))
    for what in (old, middle, new):
        store.put(what)
    store.hold(old)  # used again, and now in use
    store.put(last)
    assert [True, False, True, True] == [store.has(what) for what in (old, middle, new, last)]
    store.release(old)
    store.hold(new)
    store.hold(last)
    store.put(middle)
    assert [False, True, True, True] == [store.has(what) for what in (old, middle, new, last)]
    assert store.evicted == 2


def test_where_all_is_in_use_there_is_no_room_and_nothing_is_lost():
    room = Room(image_cache_mib=50.0)
    store = room.machine.images
    store.put(image(layer("a"), layer("b")))
    store.hold(image(layer("a"), layer("b")))
    with pytest.raises(SimulatorError, match="raise `image_cache_mib`"):
        store.hold(image(layer("c", 1, 5), layer("d")))
    assert store.used_mib == 40


@given(st.lists(st.tuples(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True), st.booleans())))
def test_the_cache_never_holds_more_than_it_can_and_always_what_is_in_use(steps):
    store = Room(image_cache_mib=70.0).machine.images
    in_use = []
    for names, stays in steps:
        what = image(*(layer(name) for name in names))
        try:
            store.put(what)
            store.hold(what)
        except SimulatorError:
            if in_use:
                store.release(in_use.pop())
            continue
        if stays:
            in_use.append(what)
        else:
            store.release(what)
        assert store.used_mib <= 70
        assert all(store.has(needed) for needed in in_use)


def test_a_name_stands_for_one_content():
    store = Room().machine.images
    store.put(image(layer("a", 10)))
    with pytest.raises(SimulatorError, match="layer 'a' is there with other sizes"):
        store.put(image(layer("a", 11)))
    tree = {"layers": [{"name": "a", "compressed_mib": 1, "unpacked_mib": 1}] * 2}
    with pytest.raises(SimulatorError, match="layer 'a' is there twice"):
        validate_record(ImageSpec, tree, "here")


def outage(room, begin, end):
    def process():
        yield room.env.timeout(begin)
        room.registry.set_speed(0.0)
        yield room.env.timeout(end - begin)
        room.registry.set_speed(1.0)

    room.env.process(process())


def test_an_outage_is_waited_for_and_the_pull_goes_on_where_it_was():
    room = Room(registry={"during_outage": "wait"})
    outage(room, 4.0, 1000.0)
    pull = room.pull(image(layer("a", 100)))
    room.env.run()
    assert 1006.0 == pytest.approx(pull.value)
    assert room.registry.failed_attempts == 0


def test_in_an_outage_attempts_fail_and_are_made_again_ever_later():
    back_off = BackOff(first_seconds=10, factor=2, cap_seconds=300)
    room = Room(registry={"timeout_seconds": 5.0, "back_off": back_off})
    outage(room, 4.0, 50.0)
    pull = room.pull(image(layer("a", 100)))
    room.env.run()
    # Stalls at 4, fails at 9, again at 19 + 5, again at 44 + 5, and from 49 + 40 on the other 60 MiB come.
    assert 89.0 + 6.0 == pytest.approx(pull.value)
    assert room.registry.failed_attempts == 3


def test_an_outage_shorter_than_the_time_out_is_only_a_delay():
    room = Room(registry={"timeout_seconds": 5.0})
    outage(room, 4.0, 8.0)
    pull = room.pull(image(layer("a", 100)))
    room.env.run()
    assert 14.0 == pytest.approx(pull.value)
    assert room.registry.failed_attempts == 0


def test_a_slow_registry_is_slow_for_all():
    room = Room()
    room.registry.set_speed(0.001)
    pull = room.pull(image(layer("a", 10)))
    room.env.run()
    assert 10.0 == pytest.approx(pull.value)
