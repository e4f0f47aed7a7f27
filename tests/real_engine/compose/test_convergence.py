"""What there is becomes what the file wants: on daemons in memory, one and several."""

import contextlib

import pytest

from real_engine.compose.balancer import Backend, Frontend
from real_engine.compose.convergence import Convergence, UpOptions
from real_engine.compose.fleet import Fleet
from real_engine.compose.progress import QuietReporter
from real_engine.compose.removal import down
from real_engine.compose.watch import Watch, frontends
from real_engine.errors import EngineError, InvalidParameter, NotFound

TEXT = """
services:
  web: {image: bb, depends_on: [db], ports: ["8080:80"], networks: [default, back], volumes: ["v:/v"]}
  db: {image: bb}
networks: {back: }
volumes: {v: }
"""


def _up(project, *hosts, names=(), **options):
    told = []
    convergence = Convergence(project, Fleet(hosts), QuietReporter(), UpOptions(**options), told.append, told.append)
    convergence.up(names)
    return told


def _names(host):
    return sorted(one["Name"] for one in host.made.values())


def test_up_makes_and_starts_in_order(project, fake_host):
    host = fake_host()
    _up(project(TEXT), host)
    assert ["p-db-1", "p-web-1"] == _names(host)
    assert ["p-db-1", "p-web-1"] == host.did("start")
    assert {"p_default", "p_back"} == set(host.networks_made)
    assert ["p_v"] == list(host.volumes_made)
    web = next(one for one in host.made.values() if one["Name"] == "p-web-1")
    assert ["p_back"] == [name for name, _ in web["Networks"]]


def test_up_again_changes_nothing(project, fake_host):
    host = fake_host()
    _up(project(TEXT), host)
    before = dict(host.made)
    host.calls.clear()
    _up(project(TEXT), host)
    assert before == host.made
    assert [] == host.did("create") + host.did("stop") + host.did("start")


def test_only_what_changed_is_made_anew(project, fake_host):
    host = fake_host()
    _up(project(TEXT), host)
    ids = {one["Name"]: identifier for identifier, one in host.made.items()}
    _up(project(TEXT.replace('"8080:80"', '"8081:80"')), host)
    after = {one["Name"]: identifier for identifier, one in host.made.items()}
    assert ids["p-db-1"] == after["p-db-1"]
    assert ids["p-web-1"] != after["p-web-1"]
    assert {"p-db-1", "p-web-1"} == set(after)
    assert {"running"} == {one["State"] for one in host.made.values()}


def test_a_new_image_is_a_change(project, fake_host):
    host = fake_host()
    _up(project(TEXT), host)
    host.calls.clear()
    host.images["bb"] = "sha256:other"
    _up(project(TEXT), host, names=["db"])
    assert ["p-db-1"] == host.did("rename")
    host.images["bb"] = "sha256:third"
    _up(project(TEXT), host, no_recreate=True)
    assert ["p-db-1"] == host.did("rename")


def test_what_cannot_be_made_anew_goes_on_running(project, fake_host):
    host = fake_host()
    _up(project("services: {a: {image: bb}}"), host)
    (identifier,) = host.made
    host.refuse[f"{identifier}_p-a-1"] = "no room"
    with pytest.raises(EngineError, match="no room"):
        _up(project("services: {a: {image: bb, labels: {a: b}}}"), host)
    assert {identifier: "running"} == {key: one["State"] for key, one in host.made.items()}


def test_force_recreate_is_for_the_services_that_are_named(project, fake_host):
    host = fake_host()
    _up(project(TEXT), host)
    host.calls.clear()
    _up(project(TEXT), host, names=["web"], force_recreate=True)
    assert ["p-web-1"] == host.did("rename")


def test_scaling(project, fake_host):
    host = fake_host()
    text = "services: {a: {image: bb, deploy: {replicas: 2}}}"
    _up(project(text), host)
    assert ["p-a-1", "p-a-2"] == _names(host)
    _up(project(text), host, scales={"a": 4})
    assert ["p-a-1", "p-a-2", "p-a-3", "p-a-4"] == _names(host)
    host.remove(next(key for key, one in host.made.items() if one["Name"] == "p-a-2"))
    _up(project(text), host, scales={"a": 4})
    assert ["p-a-1", "p-a-2", "p-a-3", "p-a-4"] == _names(host)
    _up(project(text), host, scales={"a": 1})
    assert ["p-a-1"] == _names(host)
    _up(project(text), host, scales={"a": 0})
    assert [] == _names(host)
    with pytest.raises(NotFound, match="no such service: b"):
        _up(project(text), host, scales={"b": 1})


def test_orphans_are_told_or_removed(project, fake_host):
    host = fake_host()
    _up(project(TEXT), host)
    less = "services: {db: {image: bb}}"
    assert any("Found orphan containers (p-web-1)" in text for text in _up(project(less), host))
    _up(project(less), host, remove_orphans=True)
    assert ["p-db-1"] == _names(host)


@pytest.mark.parametrize(
    ("condition", "health", "exit_codes", "message"),
    [
        ("service_healthy", {}, {}, "p-db-1 has no healthcheck configured"),
        ("service_healthy", {"db": "unhealthy"}, {}, "p-db-1 is unhealthy"),
        ("service_healthy", {"db": "starting"}, {"db": 3}, r"p-db-1 exited \(3\)"),
        ("service_completed_successfully", {}, {"db": 3}, '"db" didn\'t complete successfully: exit 3'),
    ],
)
def test_a_dependency_that_fails(project, fake_host, condition, health, exit_codes, message):
    host = fake_host()
    host.health, host.exit_codes = health, exit_codes
    text = "services: {web: {image: bb, depends_on: {db: {condition: %s, required: %s}}}, db: {image: bb}}"
    with pytest.raises(EngineError, match=message):
        _up(project(text % (condition, "true")), host)
    assert ["p-db-1"] == _names(host)
    assert any("optional dependency db" in told for told in _up(project(text % (condition, "false")), host))
    assert ["p-db-1", "p-web-1"] == _names(host)


def test_dependencies_that_come_about(project, fake_host):
    host = fake_host()
    host.health, host.exit_codes = {"db": "healthy"}, {"init": 0}
    text = (
        "services: {web: {image: bb, depends_on: {db: {condition: service_healthy}, "
        "init: {condition: service_completed_successfully}}}, db: {image: bb}, init: {image: bb}}"
    )
    _up(project(text), host)
    assert "p-web-1" == host.did("start")[-1]


def test_a_dependent_is_restarted_where_it_asks_for_it(project, fake_host):
    host = fake_host()
    text = (
        "services: {web: {image: bb, depends_on: {db: {condition: service_started, restart: true}}}, db: {image: bb%s}}"
    )
    _up(project(text % ""), host)
    _up(project(text % ", labels: {a: b}"), host)
    assert ["p-web-1"] == host.did("restart")


def test_a_shared_namespace_follows_its_container(project, fake_host):
    host = fake_host()
    text = "services: {a: {image: bb%s}, b: {image: bb, network_mode: service:a}}"
    _up(project(text % ""), host)
    _up(project(text % ", labels: {a: b}"), host)
    ids = {one["Name"]: identifier for identifier, one in host.made.items()}
    assert f"container:{ids['p-a-1']}" == host.made[ids["p-b-1"]]["HostConfig"]["NetworkMode"]


def test_images_are_pulled_as_the_policy_says(project, fake_host):
    host = fake_host()
    text = "services: {a: {image: %s, pull_policy: %s}}"
    _up(project(text % ("other", "missing")), host)
    _up(project(text % ("other", "missing")), host)
    assert ["other"] == host.did("pull")
    _up(project(text % ("other", "always")), host)
    assert ["other", "other"] == host.did("pull")
    with pytest.raises(NotFound, match="its pull policy is never"):
        _up(project(text % ("third", "never")), host)
    with pytest.raises(NotFound, match="manifest unknown"):
        _up(project(text % ("nosuch", "missing")), host)


def test_external_resources_have_to_be_there(project, fake_host):
    for text, message in (
        (
            "services: {a: {image: bb, networks: [n]}}\nnetworks: {n: {external: true}}",
            "network n declared as external",
        ),
        (
            "services: {a: {image: bb, volumes: ['v:/v']}}\nvolumes: {v: {external: true}}",
            'external volume "v" not found',
        ),
    ):
        with pytest.raises(NotFound, match=message):
            _up(project(text), fake_host())


def test_down_leaves_volumes_and_others(project, fake_host):
    host = fake_host()
    _up(project(TEXT), host)
    _up(project("services: {db: {image: bb}}", name="other"), host)
    host.calls.clear()
    down(project(TEXT), Fleet([host]), QuietReporter())
    assert ["p-web-1", "p-db-1"] == host.did("stop")  # the dependent first
    assert ["other-db-1"] == _names(host)
    assert ["other_default"] == list(host.networks_made)
    assert ["p_v"] == list(host.volumes_made)
    down(project(TEXT), Fleet([host]), QuietReporter(), volumes=True)
    assert {} == host.volumes_made


SPREAD = "services: {web: {image: bb, ports: ['8080:80'], deploy: {replicas: 4}}, db: {image: bb}}"


class _Balancer:
    def __init__(self):
        self.behind = {}

    def serve(self, wanted):
        self.behind = {frontend: list(backends) for frontend, backends in wanted.items()}


def test_replicas_are_spread_and_each_decision_is_explained(project, fake_host):
    a, b = fake_host("a"), fake_host("b")
    told = _up(project(SPREAD), a, b)
    assert 2 == sum(name.startswith("p-web") for name in _names(a))
    assert 2 == sum(name.startswith("p-web") for name in _names(b))
    assert (True, False) == ("p-db-1" in _names(a), "p-db-1" in _names(b))
    assert ["p-web-1", "p-web-2", "p-web-3", "p-web-4"] == sorted(
        name for name in _names(a) + _names(b) if "web" in name
    )
    assert 4 == sum("fewest replicas of web" in text for text in told)
    bindings = next(one for one in a.made.values() if "web" in one["Name"])["HostConfig"]["PortBindings"]
    assert {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]} == bindings


def test_only_the_named_services_are_spread(project, fake_host):
    a, b = fake_host("a"), fake_host("b")
    _up(project(SPREAD + "\nx-onggi: {spread: [db]}"), a, b, scales={"db": 2})
    assert 4 == sum("web" in name for name in _names(a))
    assert ["p-db-2"] == _names(b)


def test_a_lost_hosts_replicas_are_started_on_the_other_and_it_may_come_back(project, fake_host):
    a, b = fake_host("a"), fake_host("b")
    fleet = Fleet([a, b])
    convergence = Convergence(project(SPREAD), fleet, QuietReporter())
    convergence.up()
    said, balancer = [], _Balancer()
    watch = Watch(project(SPREAD), fleet, convergence, said.append, balancer)
    watch.step()
    front = Frontend("0.0.0.0", 8080)
    assert 4 == len(balancer.behind[front])
    a.lost = True
    watch.step()
    assert "host a is lost: its replicas are started on the others" in said
    assert ["p-db-1", "p-web-1", "p-web-2", "p-web-3", "p-web-4"] == _names(b)
    assert {backend.name for backend in balancer.behind[front]} == {f"p-web-{number}" for number in range(1, 5)}
    a.lost = False
    watch.step()
    assert "host a is back" in said
    assert 4 == sum("web" in name for name in _names(a) + _names(b))
    assert 1 == sum("db" in name for name in _names(a) + _names(b))


def test_a_failure_to_converge_is_told_and_tried_again(project, fake_host):
    a, b = fake_host("a"), fake_host("b")
    fleet = Fleet([a, b])
    convergence = Convergence(project(SPREAD), fleet, QuietReporter())
    convergence.up()
    said = []
    watch = Watch(project(SPREAD), fleet, convergence, said.append)
    a.lost = True
    missing = next(one["Name"] for one in a.made.values() if "web" in one["Name"])
    b.refuse[missing] = "no room"
    watch.step()
    assert "cannot converge: no room" in said
    b.refuse.clear()
    watch.step()
    assert 4 == sum("web" in name for name in _names(b))


def test_the_last_host_cannot_be_done_without(project, fake_host):
    a, b = fake_host("a"), fake_host("b")
    fleet = Fleet([a, b])
    a.lost = b.lost = True
    assert (["a", "b"], []) == fleet.check()
    with contextlib.suppress(EngineError):
        _ = fleet.present
        pytest.fail("there is no host left")


def test_two_services_cannot_have_one_port(project, fake_host):
    text = "services: {a: {image: bb, ports: ['80:1']}, b: {image: bb, ports: ['80:2']}}"
    a, b = fake_host("a"), fake_host("b")
    _up(project(text), a, b)
    with pytest.raises(InvalidParameter, match="services a and b both publish port 80"):
        frontends(project(text), Fleet([a, b]))


def test_backends_are_the_replicas_that_run(project, fake_host):
    a, b = fake_host("a"), fake_host("b")
    found = project(SPREAD)
    _up(found, a, b)
    stopped = next(key for key, one in a.made.items() if "web" in one["Name"])
    a.stop(stopped)
    (backends,) = frontends(found, Fleet([a, b])).values()
    assert 3 == len(backends)
    assert all(isinstance(one, Backend) and one.port > 40000 for one in backends)


def test_a_lost_hosts_replicas_are_as_many_as_scale_has_made_them(project, fake_host):
    a, b = fake_host("a"), fake_host("b")
    fleet = Fleet([a, b])
    convergence = Convergence(project(SPREAD), fleet, QuietReporter())
    convergence.up()
    watch = Watch(project(SPREAD), fleet, convergence, lambda text: None)
    watch.step()
    _up(project(SPREAD), a, b, names=["web"], scales={"web": 6}, no_recreate=True)
    watch.step()
    a.lost = True
    watch.step()
    assert [f"p-web-{number}" for number in range(1, 7)] == [name for name in _names(b) if "web" in name]
    watch.step()
    a.lost = False
    watch.step()
    assert [f"p-web-{number}" for number in range(1, 7)] == sorted(
        name for name in _names(a) + _names(b) if "web" in name
    )
    assert 3 == sum("web" in name for name in _names(a))


def test_only_the_services_that_were_asked_for_are_made_up_for(project, fake_host):
    a, b = fake_host("a"), fake_host("b")
    fleet = Fleet([a, b])
    convergence = Convergence(project(SPREAD), fleet, QuietReporter())
    convergence.up(["web"])
    watch = Watch(project(SPREAD), fleet, convergence, lambda text: None, services=["web"])
    a.lost = True
    watch.step()
    assert ["p-web-1", "p-web-2", "p-web-3", "p-web-4"] == _names(b)


def test_the_same_complaint_is_made_once(project, fake_host):
    a, b = fake_host("a"), fake_host("b")
    fleet = Fleet([a, b])
    convergence = Convergence(project(SPREAD), fleet, QuietReporter())
    convergence.up()
    said = []
    watch = Watch(project(SPREAD), fleet, convergence, said.append)
    a.lost = True
    b.refuse = {f"p-web-{number}": "no room" for number in range(1, 5)}
    watch.step()
    watch.step()
    assert 1 == said.count("cannot converge: no room")


def test_reports_of_a_removal_name_the_daemon(project, fake_host):
    lines: list[str] = []

    class Reporter(QuietReporter):
        def report(self, kind, name, status):
            lines.append(f"{kind} {name} {status}")

    a, b = fake_host("a"), fake_host("b")
    _up(project(SPREAD), a, b)
    down(project(SPREAD), Fleet([a, b]), Reporter())
    assert {"Network p_default on a Removed", "Network p_default on b Removed"} <= set(lines)
    assert "Container p-web-2 on b Removed" in lines
