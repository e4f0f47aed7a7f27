"""Compose files: found, read, filled in, merged, checked."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.compose.canonical import parse_port, parse_volume
from real_engine.compose.listing import render
from real_engine.compose.project import load_project
from real_engine.compose.quantities import duration_nanoseconds, size_bytes
from real_engine.errors import InvalidParameter, NotFound


def test_anchors_merge_keys_and_extensions(project):
    found = project(
        """
        x-common: &common {restart: always, labels: [a=b]}
        services:
          web: {<<: *common, image: "bb:${TAG:-1}", x-mine: 3}
        """
    )
    web = found.services["web"]
    assert ("bb:1", "always", {"a": "b"}) == (web.image, web.restart, web.labels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: {a: {image: x, pots: ['80']}}", ("services.a: additional property `pots` is not allowed: "
         "did you mean `ports`?")),
        ("servces: {}", "the file: additional property `servces` is not allowed: did you mean `services`?"),
        ("services: {a: {image: x, deploy: {resources: {limits: {memry: 3}}}}}", ("services.a.deploy.resources.limits: "
         "additional property `memry` is not allowed: did you mean `memory`?")),
        ("services: {a: {image: x, ports: ['80000']}}", "a port is a number from 1 to 65535"),
        ("services: {a: {image: x, ports: ['1-2:3-5']}}", "different lengths"),
        ("services: {a: {}}", "services.a: it has neither an image nor a build context specified"),
        ("services: {a: {image: x, depends_on: [b]}, b: {image: y, depends_on: [a]}}", "cycle detected: a -> b -> a"),
        ("services: {a: {image: x, depends_on: [b]}}", "service a depends on undefined service b"),
        ("services: {a: {image: x, volumes: ['v:/x']}}", "service a refers to undefined volume v"),
        ("services: {a: {image: x, networks: [n]}}", "service a refers to undefined network n"),
        ("services: {a: {image: x, secrets: [s]}}", "service a refers to undefined secret s"),
        ("services: {a: {image: x, healthcheck: {interval: 3x}}}", "a.healthcheck.interval: `3x` is no duration"),
        ("services: {a: {image: x, mem_limit: lots}}", "services.a.mem_limit: `lots` is no size"),
        ("services: {a: {image: '${X?need}'}}", "services.a.image: required variable X is missing a value: need"),
        ("services: {a: {image: x, develop: {}}}", "`develop` is not supported here"),
        ("services: {a: {image: x, container_name: cc, deploy: {replicas: 2}}}", "container_name allows one"),
        ("services: {a: {image: x, network_mode: host, networks: [default]}}", "mutually exclusive"),
        ("services: {a: {image: x, command: \"'\"}}", "services.a.command: No closing quotation"),
        ("secrets: {s: {external: true}}", "needs a swarm"),
        ("services: {a: {image: x, extends: b}}", "no such service `b`"),
        ("services: {a: {image: x, extends: a}}", "it comes back to itself"),
        ("services: [", "compose.yaml:1:"),
        ("- a", "top-level object must be a mapping"),
        ("services: {a: {image: x}, a: {image: y}}", "mapping key 'a' is there twice"),
        ("a: &a [*a]", "too large once its aliases are followed"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(project, text, message):
    with pytest.raises(InvalidParameter) as caught:
        project(text)
    assert message in str(caught.value)


def test_aliases_cannot_fill_the_memory(project):
    levels = "\n".join(f"x-{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 9))
    with pytest.raises(InvalidParameter, match="too large"):
        project(f"x-0: &l0 [a]\n{levels}")


def test_later_files_add_and_replace(project):
    found = project(
        """
        services:
          a:
            image: one
            command: first command
            environment: [A=1, B=1]
            ports: ["80:80"]
            volumes: ["./x:/data", "v:/v"]
            labels: {l: one}
            cap_add: [NET_ADMIN]
            dns: 1.1.1.1
          b: {image: b}
        volumes: {v: }
        """,
        """
        services:
          a:
            image: two
            command: [second]
            environment: {B: 2, C: 3}
            ports: ["81:81", "80:80"]
            volumes: ["./y:/data:ro"]
            labels: [m=two]
            cap_add: [NET_ADMIN, SYS_TIME]
            dns: !override [2.2.2.2]
          b: !reset null
        """,
    )
    a = found.services["a"]
    assert ("two", ["second"], {"A": "1", "B": "2", "C": "3"}) == (a.image, a.command, a.environment)
    assert [80, 81] == [port.target for port in a.ports]
    assert {"/data": "y", "/v": "v"} == {mount.target: mount.source.rpartition("/")[2] for mount in a.volumes}
    assert a.volumes[0].read_only
    assert {"l": "one", "m": "two"} == a.labels
    assert ["NET_ADMIN", "SYS_TIME"] == a.cap_add
    assert ["2.2.2.2"] == a.dns
    assert ["a"] == list(found.services)


def test_extends_takes_from_another_file(project, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/base.yaml").write_text(
        "services: {base: {image: one, environment: {A: 1, B: 1}, volumes: ['./here:/x']}}"
    )
    found = project("services: {a: {extends: {file: sub/base.yaml, service: base}, environment: {B: 2}}}")
    a = found.services["a"]
    assert ("one", {"A": "1", "B": "2"}) == (a.image, a.environment)
    assert str(tmp_path / "sub/here") == a.volumes[0].source


def test_profiles(project):
    text = """
        services:
          a: {image: x}
          b: {image: x, profiles: [debug]}
          c: {image: x, profiles: [debug], depends_on: [d]}
          d: {image: x, profiles: [other]}
        """
    assert ["a"] == list(project(text).services)
    assert ["a", "b", "c"] == list(project(text, profiles=["debug"]).services)
    assert ["a", "b", "c"] == list(project(text, environment={"COMPOSE_PROFILES": "debug"}).services)
    assert ["b"] == list(project(text).select(["b"]))
    assert ["c", "d"] == list(project(text).select(["c"]))
    with pytest.raises(InvalidParameter, match="which no active profile enables"):
        project(text, profiles=["debug"]).select([])
    with pytest.raises(NotFound, match="no such service: nosuch"):
        project(text).select(["nosuch"])


def test_names_of_projects(project, tmp_path):
    text = "name: mine\nservices: {a: {image: x}}"
    assert "given" == project(text, name="given").name
    assert "mine" == project(text, name="").name
    assert "env" == project(text, name="", environment={"COMPOSE_PROJECT_NAME": "env"}).name
    with pytest.raises(InvalidParameter, match='invalid project name "A b"'):
        project(text, name="A b")
    folder = tmp_path / "My.Project"
    folder.mkdir()
    (folder / "compose.yaml").write_text("services: {a: {image: x}}")
    (folder / "compose.override.yaml").write_text("services: {a: {image: y}}")
    (folder / "deep").mkdir()
    found = load_project(directory=folder / "deep", environment={})
    assert ("y", [folder / "compose.yaml", folder / "compose.override.yaml"]) == (
        found.services["a"].image,
        list(found.files),
    )


def test_variables_come_from_env_files_and_the_environment_wins(project, tmp_path):
    (tmp_path / ".env").write_text("TAG=from-file\nOTHER=o\n")
    (tmp_path / "service.env").write_text("A=file\nB=file\nC\n")
    text = """
        services:
          a:
            image: x:${TAG}
            env_file: [service.env, {path: nosuch.env, required: false}]
            environment: {B: own, D: , E: }
        """
    found = project(text, environment={"C": "outside", "D": "outside"})
    assert "x:from-file" == found.services["a"].image
    assert {"A": "file", "B": "own", "C": "outside", "D": "outside"} == found.services["a"].environment
    assert "x:outside" == project(text, environment={"TAG": "outside"}).services["a"].image
    assert ('The "NO" variable is not set. Defaulting to a blank string.',) == project(
        "services: {a: {image: 'x$NO'}}"
    ).warnings
    with pytest.raises(InvalidParameter, match=r"services.a: env file .*nosuch.env not found"):
        project("services: {a: {image: x, env_file: nosuch.env}}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [("", "", 80, "tcp")]),
        ("8080:80/udp", [("", "8080", 80, "udp")]),
        ("127.0.0.1:8080:80", [("127.0.0.1", "8080", 80, "tcp")]),
        ("127.0.0.1::80", [("127.0.0.1", "", 80, "tcp")]),
        ("[::1]:8080:80", [("::1", "8080", 80, "tcp")]),
        ("8000-8001:80-81", [("", "8000", 80, "tcp"), ("", "8001", 81, "tcp")]),
        ("8000-8009:80", [("", "8000-8009", 80, "tcp")]),
        ("80-81", [("", "", 80, "tcp"), ("", "", 81, "tcp")]),
    ],
)
def test_ports(text, expected):
    found = [
        (one.get("host_ip", ""), one.get("published", ""), one["target"], one["protocol"]) for one in parse_port(text)
    ]
    assert expected == found


def test_volumes():
    assert {"type": "volume", "target": "/x"} == parse_volume("/x")
    assert {"type": "volume", "source": "v", "target": "/x", "volume": {"nocopy": True}} == parse_volume("v:/x:nocopy")
    bind = {"type": "bind", "source": "./a", "target": "/x", "read_only": True}
    assert {**bind, "bind": {"create_host_path": True, "propagation": "rslave"}} == parse_volume("./a:/x:ro,rslave")
    for bad in ("a:b:c:d", "v:/x:what", ":/x", "v:/x:rslave"):
        with pytest.raises(InvalidParameter):
            parse_volume(bad)


def test_quantities():
    assert [64 << 20, 1536, 7, 1 << 30, -1] == [size_bytes(one) for one in ("64m", "1.5KiB", 7, "1gb", "-1")]
    assert [90_000_000_000, 500_000_000, 3_000_000_000, 5_400_000_000_000] == [
        duration_nanoseconds(one) for one in ("1m30s", "0.5s", 3, "1.5h")
    ]
    for bad in ("", "x", "1x", "s"):
        with pytest.raises(ValueError, match="is no duration"):
            duration_nanoseconds(bad)


_words = st.text("abc $'\"{}:#-\n", max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,5}", fullmatch=True), _words), st.lists(_words, min_size=1), _words)
def test_what_config_shows_means_the_same(tmp_path_factory, environment, command, label):
    folder = tmp_path_factory.mktemp("config")
    service = {
        "image": "bb",
        "environment": {key: value.replace("$", "$$") for key, value in environment.items()},
        "command": [word.replace("$", "$$") for word in command],
        "labels": {"l": label.replace("$", "$$")},
        "stop_grace_period": "1m30s",
        "ports": ["8080:80"],
        "deploy": {"replicas": 2},
    }
    (folder / "compose.yaml").write_text(json.dumps({"services": {"a": service}}))
    first = load_project([folder / "compose.yaml"], name="p", environment={})
    assert command == first.services["a"].command
    (folder / "again.yaml").write_text(render(first))
    again = load_project([folder / "again.yaml"], name="p", environment={})
    assert first.services["a"].model_dump(exclude={"networks"}) == again.services["a"].model_dump(exclude={"networks"})
