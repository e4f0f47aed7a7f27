"""Work in the order of dependencies."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.compose.ordering import at_once, in_order


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.integers(0, 8), st.sets(st.integers(0, 8)), max_size=8))
def test_each_comes_after_what_it_needs(graph):
    names = [str(number) for number in range(9)]
    needs = {str(key): {str(one) for one in values if one < key} for key, values in graph.items()}
    done, lock = [], threading.Lock()

    def work(name):
        with lock:
            assert needs.get(name, set()) <= set(done)
            done.append(name)

    in_order(names, needs, work)
    assert sorted(names) == sorted(done)


def test_independent_things_run_at_once():
    barrier = threading.Barrier(2, timeout=5)
    in_order(["a", "b"], {}, lambda name: barrier.wait())


def test_after_a_failure_nothing_new_begins():
    done = []

    def work(name):
        done.append(name)
        if name == "a":
            raise ValueError("a has failed")

    with pytest.raises(ValueError, match="a has failed"):
        in_order(["a", "b"], {"b": ["a"]}, work)
    assert ["a"] == done


def test_all_are_tried_and_the_failure_is_told():
    done = []

    def work(item):
        done.append(item)
        if item == 1:
            raise ValueError("one")

    with pytest.raises(ValueError, match="one"):
        at_once([1, 2, 3], work)
    assert {1, 2, 3} == set(done)
