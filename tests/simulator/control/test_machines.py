"""The machine autoscaler: minutes to add, ten minutes to remove."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from simulator.control.machines import Delay, MachineAutoscaler, MachineAutoscalerSettings, MachineView
from simulator.errors import SimulatorError


def settings(**more: object) -> MachineAutoscalerSettings:
    return MachineAutoscalerSettings.model_validate({"max_machines": 20, **more})


def autoscaler(**more: object) -> MachineAutoscaler:
    return settings(**more).build(4)


def machine(name: str = "machine-0", instances: int = 4, *, ready: bool = True) -> MachineView:
    """One that has room for four."""
    return MachineView(name, ready, instances, 4 - instances, instances / 4)


def test_from_need_to_machine_it_takes_three_to_four_minutes_and_at_most_half_a_minute_more():
    kinds, random = settings(), np.random.default_rng(1)
    drawn = [kinds.draw(random) for _ in range(2000)]
    # The need can come just after a look.
    totals = [kinds.scan_seconds * random.random() + each.seconds for each in drawn]

    assert all(each.succeeds for each in drawn)
    assert 180 <= min(totals)
    assert max(totals) <= 240 + 30
    assert 180 <= min(each.provision_seconds for each in drawn)
    assert max(each.provision_seconds for each in drawn) <= 240
    # Uniform: 210 s on average; the mean of 2000 within 4 of its standard deviations.
    assert 210 == pytest.approx(np.mean([each.provision_seconds for each in drawn]), abs=4 * 60 / (12 * 2000) ** 0.5)


@pytest.mark.parametrize(("pending", "add"), [(0, 0), (1, 1), (4, 1), (5, 2), (400, 19)])
def test_it_orders_as_many_as_those_without_room_need(pending, add):
    assert add == autoscaler().decide(0.0, pending, [machine()]).add


def test_what_is_coming_is_not_ordered_again():
    coming = [machine(), machine("machine-1", 0, ready=False)]

    assert 0 == autoscaler().decide(10.0, 4, coming).add
    assert 1 == autoscaler().decide(10.0, 5, coming).add


def test_it_keeps_the_least_and_the_most():
    assert 3 == autoscaler(min_machines=4).decide(0.0, 0, [machine()]).add
    limited = autoscaler(max_machines=2).decide(0.0, 100, [machine()])
    assert 1 == limited.add
    assert "max_machines 2" in limited.reason


def removed(policy: MachineAutoscaler, machines: list[MachineView], until: float, since: float = 0.0) -> dict:
    """What it removes at each look, and when."""
    looks = np.arange(since, until + 1, 10.0)
    decisions = [policy.decide(float(now), 0, machines) for now in looks]
    return {decision.seconds: decision.remove for decision in decisions if decision.remove}


def test_a_machine_goes_when_it_was_unneeded_for_ten_minutes():
    machines = [machine("a", 2), machine("b", 1)]

    assert {600.0: ("b",)} == removed(autoscaler(), machines, 600)


def test_a_moment_of_need_begins_the_ten_minutes_again():
    policy = autoscaler()
    assert {} == removed(policy, [machine("a", 2), machine("b", 1)], 590)
    policy.decide(600.0, 0, [machine("a", 2), machine("b", 3)])

    assert {1210.0: ("b",)} == removed(policy, [machine("a", 2), machine("b", 1)], 1210, since=610)


@pytest.mark.parametrize(
    ("machines", "why"),
    [
        ([machine("a", 2), machine("b", 2)], "half used"),
        ([machine("a", 4), machine("b", 1)], "no room elsewhere"),
        ([machine("b", 1)], "no other"),
    ],
)
def test_a_machine_stays_while_it_is_used_or_its_instances_fit_nowhere(machines, why):
    assert {} == removed(autoscaler(), machines, 3000), why


def test_two_that_could_only_go_to_each_other_do_not_both_go():
    machines = [machine("a", 1), machine("b", 1), machine("c", 4)]

    assert {600.0: ("a",)} == removed(autoscaler(), machines, 600)


def test_one_that_is_the_place_for_another_is_not_unneeded_itself():
    policy = autoscaler()
    assert {600.0: ("a",)} == removed(policy, [machine("a", 1), machine("b", 1), machine("c", 4)], 600)

    # Room has come on another. Only now do the ten minutes of the second begin.
    assert 1210.0 == min(removed(policy, [machine("b", 1), machine("c", 3)], 1300, since=610))


def test_empty_ones_go_together_and_others_one_by_one():
    empties = [machine(f"e{number}", 0) for number in range(12)] + [machine("full", 4)]
    assert 10 == len(removed(autoscaler(), empties, 600)[600.0])
    light = [machine("a", 1), machine("b", 1), machine("c", 1), machine("d", 1)]
    assert 1 == len(removed(autoscaler(), light, 600)[600.0])


def test_the_least_stay():
    assert {} == removed(autoscaler(min_machines=2), [machine("a", 1), machine("b", 1)], 2000)


def test_none_is_removed_soon_after_one_was_added():
    policy = autoscaler(unneeded_seconds=0)
    policy.decide(0.0, 1, [machine("a", 2), machine("b", 1)])

    assert 600.0 == min(removed(policy, [machine("a", 2), machine("b", 1)], 700, since=10))


def test_after_a_failure_it_waits_longer_and_longer():
    policy = autoscaler()
    pauses = []
    now = 0.0
    for _ in range(5):
        policy.provisioning_failed(now)
        ordered = next(t for t in np.arange(now, now + 4000, 10) if policy.decide(float(t), 1, [machine()]).add)
        pauses.append(ordered - now)
        now = ordered
    assert [300, 600, 1200, 1800, 1800] == pauses

    policy.provisioning_succeeded()
    policy.provisioning_failed(now)
    assert 1 == policy.decide(now + 300, 1, [machine()]).add


def test_a_machine_can_fail_to_come_and_that_is_found_out_late():
    random = np.random.default_rng(2)
    drawn = [settings(failure_probability=0.2).draw(random) for _ in range(2000)]
    failed = [each for each in drawn if not each.succeeds]

    assert {900.0} == {each.provision_seconds for each in failed}
    # 400 expected, with a standard deviation of 17.9.
    assert 400 - 4 * 17.9 <= len(failed) <= 400 + 4 * 17.9


def test_a_chance_of_failure_does_not_move_the_times():
    def drawn(chance: float) -> list[tuple[float, float, bool]]:
        random = np.random.default_rng(3)
        orders = [settings(failure_probability=chance).draw(random) for _ in range(50)]
        return [(each.decided_seconds, each.provision_seconds, each.succeeds) for each in orders]

    never, sometimes = drawn(0.0), drawn(0.5)
    assert any(not each[2] for each in sometimes)
    assert all(before == after for before, after in zip(never, sometimes, strict=True) if after[2])


@pytest.mark.parametrize(
    ("tree", "mean"),
    [
        ({"kind": "fixed", "seconds": 7}, 7),
        ({"kind": "uniform", "low_seconds": 2, "high_seconds": 12}, 7),
        ({"kind": "lognormal", "mean_seconds": 7, "coefficient_of_variation": 0.5}, 7),
    ],
)
def test_a_delay_has_its_mean(tree, mean):
    delay = TypeAdapter(Delay).validate_python(tree)
    random = np.random.default_rng(4)

    # At most a coefficient of variation of 0.5: 4 standard deviations of the mean of 10,000.
    assert mean == pytest.approx(np.mean([delay.draw(random) for _ in range(10_000)]), rel=4 * 0.5 / 100)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=12), st.integers(0, 60), st.integers(0, 6))
def test_it_never_leaves_its_bounds_nor_those_that_run_without_a_place(contents, pending, least):
    policy = autoscaler(min_machines=least, max_machines=12, unneeded_seconds=0)
    machines = [
        machine(f"machine-{number}", count if ready else 0, ready=ready)
        for number, (count, ready) in enumerate(contents)
    ]
    decision = policy.decide(100.0, pending, machines)
    left = [each for each in machines if each.name not in decision.remove]

    assert min(least, len(machines)) <= len(left)
    assert len(left) + decision.add <= 12
    if decision.remove:
        moved = sum(each.instances for each in machines if each.name in decision.remove)
        assert moved <= sum(each.room for each in left if each.ready)
        assert not pending
        assert not decision.add


def test_where_not_one_instance_fits_it_is_refused():
    with pytest.raises(SimulatorError, match=r"machines\.spec"):
        settings().build(0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_machines": 21},
        {"scale_down_utilisation": 1.5},
        {"provision": {"kind": "uniform", "low_seconds": 9, "high_seconds": 1}},
        {"provision": {"kind": "fixed", "seconds": -1}},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        settings(**wrong)
