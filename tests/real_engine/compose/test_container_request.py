"""A service as the Engine API's JSON."""

import json

import pytest

from real_engine.compose import labels
from real_engine.compose.container_request import (
    container_request,
    granted_path,
    network_request,
    with_containers,
    with_kept_volumes,
    with_labels,
)
from real_engine.errors import InvalidParameter

EVERYTHING = """
services:
  db: {image: bb}
  web:
    image: bb
    command: sleep "1 0"
    entrypoint: [/entry]
    environment: {A: 1}
    ports: ["127.0.0.1:8080:80", "90/udp"]
    expose: ["70-71"]
    networks: {front: {aliases: [w], priority: 1, ipv4_address: 10.9.0.5}, default: {}, }
    volumes:
      - /host:/h:ro
      - vol:/v
      - /anon
      - {type: tmpfs, target: /t, tmpfs: {size: 1m}}
      - {type: volume, source: vol, target: /s, volume: {subpath: a}}
    tmpfs: /run:size=1m
    secrets: [s]
    configs: [{source: c, target: /etc/c}]
    healthcheck: {test: [CMD, "true"], interval: 1s, retries: 3, start_interval: 1s}
    deploy: {resources: {limits: {cpus: "0.5", memory: 64M, pids: 7}, reservations: {memory: 32m}}}
    restart: on-failure:3
    ulimits: {nofile: 100, nproc: {soft: 1, hard: 2}}
    sysctls: [net.core.somaxconn=7]
    extra_hosts: ["h:1.2.3.4"]
    devices: [/dev/null:/dev/n:r]
    stop_grace_period: 1m
    stop_signal: SIGINT
    cap_drop: [ALL]
    logging: {driver: json-file, options: {max-size: 1m}}
    init: true
    read_only: true
    shm_size: 1m
    memswap_limit: -1
    depends_on: {db: {condition: service_healthy, restart: true}}
networks: {front: {name: f, ipam: {config: [{subnet: 10.9.0.0/24}]}, internal: true, driver_opts: {o: 1}}}
volumes: {vol: }
secrets: {s: {file: ./secret}}
configs: {c: {content: "text"}}
"""


def test_everything(project, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    found = project(EVERYTHING)
    request = container_request(found, "web", "bb")
    body, host = request.body, request.body["HostConfig"]
    assert (["sleep", "1 0"], ["/entry"], ["A=1"]) == (body["Cmd"], body["Entrypoint"], body["Env"])
    assert {"70/tcp", "71/tcp", "80/tcp", "90/udp"} == set(body["ExposedPorts"])
    assert {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
        "90/udp": [{"HostIp": "", "HostPort": ""}],
    } == host["PortBindings"]
    assert "f" == host["NetworkMode"]
    front = {"Aliases": ["web", "w"], "IPAMConfig": {"IPv4Address": "10.9.0.5"}}
    assert (("f", front), ("p_default", {"Aliases": ["web"]})) == request.attachments
    assert {"EndpointsConfig": {"f": front}} == body["NetworkingConfig"]
    assert ["/host:/h:ro"] == host["Binds"]
    mounts = {mount["Target"]: mount for mount in host["Mounts"]}
    assert {"Type": "volume", "Source": "p_vol", "Target": "/v"} == mounts["/v"]
    assert "a" == mounts["/s"]["VolumeOptions"]["Subpath"]
    assert 1 << 20 == mounts["/t"]["TmpfsOptions"]["SizeBytes"]
    assert (str(tmp_path / "secret"), True) == (
        mounts["/run/secrets/s"]["Source"],
        mounts["/run/secrets/s"]["ReadOnly"],
    )
    assert granted_path(found, "configs", "c") == mounts["/etc/c"]["Source"]
    assert {"/anon": {}} == body["Volumes"]
    assert {"/run": "size=1m"} == host["Tmpfs"]
    assert {"Test": ["CMD", "true"], "Interval": 10**9, "Retries": 3} == body["Healthcheck"]
    assert (500_000_000, 64 << 20, 32 << 20, -1, 7) == tuple(
        host[field] for field in ("NanoCpus", "Memory", "MemoryReservation", "MemorySwap", "PidsLimit")
    )
    assert {"Name": "on-failure", "MaximumRetryCount": 3} == host["RestartPolicy"]
    assert {"Name": "nproc", "Soft": 1, "Hard": 2} in host["Ulimits"]
    assert (60, "SIGINT", ["ALL"], {"net.core.somaxconn": "7"}, ["h:1.2.3.4"]) == (
        body["StopTimeout"],
        body["StopSignal"],
        host["CapDrop"],
        host["Sysctls"],
        host["ExtraHosts"],
    )
    assert {"PathOnHost": "/dev/null", "PathInContainer": "/dev/n", "CgroupPermissions": "r"} == host["Devices"][0]
    tags = with_labels(request, found, "web", 2, "sha256:x")["Labels"]
    assert ("p", "web", "2", "False", "db:service_healthy:true") == tuple(
        tags[key] for key in (labels.PROJECT, labels.SERVICE, labels.NUMBER, labels.ONEOFF, labels.DEPENDS_ON)
    )
    json.dumps(body)


def test_a_network(project):
    body = network_request(project(EVERYTHING), "front")
    assert ("f", True, {"o": "1"}, [{"Subnet": "10.9.0.0/24"}]) == (
        body["Name"],
        body["Internal"],
        body["Options"],
        body["IPAM"]["Config"],
    )


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("deploy: {replicas: 3}", True),
        ("profiles: [x]", True),
        ("pull_policy: always", True),
        ("environment: {A: 2}", False),
        ("labels: {a: b}", False),
        ("ports: ['80']", False),
        ("networks: {default: {aliases: [x]}}", False),
        ("volumes: ['/x']", False),
    ],
)
def test_the_hash_changes_with_the_container_alone(project, change, same):
    plain = container_request(project("services: {a: {image: bb}}"), "a", "bb").config_hash
    changed = container_request(
        project(f"services: {{a: {{image: bb, {change}}}}}", profiles=["x"]), "a", "bb"
    ).config_hash
    assert same == (plain == changed)


def test_a_secret_that_changes_changes_the_container(project, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    text = "services: {a: {image: bb, secrets: [s]}}\nsecrets: {s: {environment: S}}"
    hashes = {container_request(project(text, environment={"S": value}), "a", "bb").config_hash for value in "xy"}
    assert 2 == len(hashes)
    with pytest.raises(InvalidParameter, match=r"secrets\.s: the environment variable S is not set"):
        container_request(project(text), "a", "bb")


def test_namespaces_and_volumes_of_other_services(project):
    found = project(
        "services: {a: {image: bb}, b: {image: bb, network_mode: service:a, pid: service:a, "
        "volumes_from: [a:ro, container:other]}}"
    )
    body = container_request(found, "b", "bb").body
    host = with_containers(body, {"a": "123"})["HostConfig"]
    assert ("container:123", "container:123", ["123:ro", "other"]) == (
        host["NetworkMode"],
        host["PidMode"],
        host["VolumesFrom"],
    )
    with pytest.raises(InvalidParameter, match="service a, whose namespace"):
        with_containers(body, {})


def test_anonymous_volumes_are_kept_when_a_container_is_made_anew():
    body = {"HostConfig": {"Binds": ["/x:/taken"]}}
    inspected = {
        "HostConfig": {"Binds": ["named:/named"], "Mounts": None},
        "Mounts": [
            {"Type": "volume", "Name": "abc", "Destination": "/anon"},
            {"Type": "volume", "Name": "def", "Destination": "/taken"},
            {"Type": "volume", "Name": "named", "Destination": "/named"},
            {"Type": "bind", "Source": "/y", "Destination": "/y"},
        ],
    }
    assert ["/x:/taken", "abc:/anon"] == with_kept_volumes(body, inspected)["HostConfig"]["Binds"]


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("restart: sometimes", "`sometimes` is no policy"),
        ("healthcheck: {test: ['true']}", "must begin with NONE, CMD or CMD-SHELL"),
        ("security_opt: ['seccomp=/nosuch']", "cannot read the seccomp profile"),
        ("expose: [x]", "`x` is no port"),
    ],
)
def test_values_that_cannot_be(project, service, message):
    with pytest.raises(InvalidParameter, match=message):
        container_request(project(f"services: {{a: {{image: bb, {service}}}}}"), "a", "bb")
