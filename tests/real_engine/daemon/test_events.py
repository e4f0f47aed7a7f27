import select
import threading

import pytest

from real_engine.daemon.events import Event, EventBus, matches
from real_engine.filters import Filters


def readable(subscription, seconds=0.0):
    return bool(select.select([subscription], [], [], seconds)[0])


def event(kind="container", action="start", actor="abcdef", attributes=None):
    return Event(kind, action, actor, attributes or {"name": "web", "image": "nginx:1"}, 1)


def test_a_subscription_gets_what_happens_from_now_on():
    bus = EventBus()
    bus.publish("container", "create", "a")
    with bus.subscribe() as subscription:
        assert not readable(subscription)
        bus.publish("container", "start", "a", {"name": "web"})
        assert readable(subscription)
        assert [("start", {"name": "web"})] == [(one.action, one.attributes) for one in subscription.take()]
        assert not readable(subscription)
        assert [] == subscription.take()


def test_the_past_comes_first_and_only_from_since_to_until():
    bus = EventBus()
    for number in range(5):
        bus.publish("container", str(number), "a")
    with bus.subscribe(since=0) as everything:
        kept = everything.take()
    assert ["0", "1", "2", "3", "4"] == [one.action for one in kept]
    with bus.subscribe(since=kept[1].nanoseconds, until=kept[3].nanoseconds) as some:
        assert ["1", "2", "3"] == [one.action for one in some.take()]
    with bus.subscribe(until=kept[0].nanoseconds) as first:
        assert ["0"] == [one.action for one in first.take()]


def test_only_the_last_256_are_kept():
    bus = EventBus()
    for number in range(300):
        bus.publish("container", str(number), "a")
    with bus.subscribe(since=0) as subscription:
        assert [str(number) for number in range(44, 300)] == [one.action for one in subscription.take()]


def test_a_slow_listener_is_cut_off_and_learns_so():
    bus = EventBus()
    with bus.subscribe() as slow, bus.subscribe() as quick:
        for number in range(4096 + 10):
            bus.publish("container", str(number), "a")
            if number % 1000 == 0:
                quick.take()
        assert (True, False) == (slow.lost, quick.lost)
        assert readable(slow)
        assert 4096 == len(slow.take())
        bus.publish("container", "more", "a")
        assert [] == slow.take()
        assert "more" == quick.take()[-1].action


def test_whoever_has_left_gets_nothing():
    bus = EventBus()
    subscription = bus.subscribe()
    assert 1 == bus.listeners
    subscription.close()
    subscription.close()
    bus.publish("container", "start", "a")
    assert (0, []) == (bus.listeners, subscription.take())


def test_many_publish_at_once_and_nothing_is_lost_or_out_of_order():
    bus = EventBus()
    with bus.subscribe() as subscription:
        threads = [
            threading.Thread(target=lambda: [bus.publish("container", "start", "a") for _ in range(200)])
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        got = []
        while len(got) < 1000:
            assert readable(subscription, 5.0)
            got += subscription.take()
        for thread in threads:
            thread.join()
    times = [one.nanoseconds for one in got]
    assert sorted(times) == times


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, True),
        ({"type": ["container"]}, True),
        ({"type": ["image"]}, False),
        ({"type": ["image", "container"]}, True),
        ({"event": ["start"]}, True),
        ({"event": ["sta"]}, False),
        ({"container": ["abc"]}, True),
        ({"container": ["web"]}, True),
        ({"container": ["other"]}, False),
        ({"image": ["nginx"]}, True),
        ({"image": ["nginx:1"]}, True),
        ({"image": ["nginx:2"]}, False),
        ({"label": ["name=web"]}, True),
        ({"label": ["name=db"]}, False),
        ({"scope": ["local"]}, True),
        ({"scope": ["swarm"]}, False),
        ({"type": ["container"], "event": ["die"]}, False),
        ({"unknown": ["x"]}, True),
    ],
)
def test_filters(filters, expected):
    assert expected is matches(event(), Filters(filters))


def test_an_action_with_a_detail_is_found_without_it():
    filters = Filters({"event": ["exec_create"]})
    assert matches(event(action="exec_create: sh -c true"), filters)
    assert not matches(event(action="start"), filters)


def test_old_fields_of_containers_and_images():
    got = event().to_json()
    assert ("start", "abcdef", "nginx:1") == (got["status"], got["id"], got["from"])
    got = event(kind="image", action="pull", actor="nginx:1", attributes={"name": "nginx"}).to_json()
    assert ("pull", "nginx:1", False) == (got["status"], got["id"], "from" in got)
    assert "status" not in event(kind="network").to_json()


def test_a_registry_with_a_port_is_no_tag():
    one = event(kind="image", actor="sha256:1", attributes={"name": "host:5000/a:1"})
    assert matches(one, Filters({"image": ["host:5000/a"]}))
    assert not matches(one, Filters({"image": ["host"]}))
