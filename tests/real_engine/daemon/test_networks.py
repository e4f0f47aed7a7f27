"""The API's calls under /networks, held against Docker's description and against dockerd."""

import json
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from real_engine.linux.network_namespaces import create_network_namespace, entered
from real_engine.networks import EndpointRequest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("nft") is None, reason="no program nft"),
]
SUBNET = {"Config": [{"Subnet": "10.211.8.0/24"}]}


@pytest.fixture(autouse=True)
def own_host() -> Iterator[None]:
    """The daemon is in a network namespace of its own, so that the machine's bridges and rules stay untouched."""
    namespace = create_network_namespace()
    try:
        with entered(namespace):
            yield
    finally:
        os.close(namespace)


def test_a_life(api: Any, check: Any) -> None:
    body = {"Name": "n1", "IPAM": SUBNET, "Labels": {"a": "b"}, "Internal": True, "Options": {"x": "y"}}
    created = api.post("/networks/create", body)
    assert (201, {"Id", "Warning"}) == (created.status, set(created.json()))
    check("POST", "/networks/create", 201, created.json())
    shown = api.get("/networks/n1").json()
    check("GET", "/networks/n1", 200, shown)
    assert {
        "Name": "n1",
        "Id": created.json()["Id"],
        "Created": shown["Created"],
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": [{"Subnet": "10.211.8.0/24"}]},
        "Internal": True,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {"x": "y"},
        "Labels": {"a": "b"},
    } == shown
    listed = api.get("/networks")
    check("GET", "/networks", 200, listed.json())
    assert {"n1", "bridge", "host", "none"} == {each["Name"] for each in listed.json()}
    assert 204 == api.delete("/networks/n1").status
    gone = api.get("/networks/n1")
    assert (404, "network n1 not found") == (gone.status, gone.message)
    events = [
        (each["Action"], each["Actor"]["Attributes"])
        for each in api.get("/events", since=0, until=int(time.time()) + 1).lines()
    ]
    assert [(action, {"name": "n1", "type": "bridge"}) for action in ("create", "destroy")] == events


def test_containers_are_shown(api: Any, daemon: Any) -> None:
    api.post("/networks/create", {"Name": "n1", "IPAM": SUBNET})
    namespace = create_network_namespace()
    endpoint = daemon.networks.connect("n1", "c" * 64, namespace, EndpointRequest(container_name="one"))
    assert {
        "c" * 64: {
            "Name": "one",
            "EndpointID": endpoint.id,
            "MacAddress": "02:42:0a:d3:08:02",
            "IPv4Address": "10.211.8.2/24",
            "IPv6Address": "",
        }
    } == api.get("/networks/n1").json()["Containers"]
    refused = api.delete("/networks/n1")
    identifier = api.get("/networks/n1").json()["Id"]
    text = f"error while removing network: network n1 id {identifier} has active endpoints"
    assert (403, text) == (refused.status, refused.message)
    assert [] == api.get("/networks", filters={"dangling": ["true"]}).json()
    daemon.networks.release("c" * 64)
    assert ["n1"] == [each["Name"] for each in api.get("/networks", filters={"dangling": ["true"]}).json()]
    os.close(namespace)


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"driver": ["null"]}, {"none"}),
        ({"type": ["custom"]}, {"front", "back"}),
        ({"type": ["builtin"]}, {"bridge", "host", "none"}),
        ({"name": ["fr"]}, {"front"}),
        ({"name": ["^b"]}, {"back", "bridge"}),
        ({"label": ["tier"]}, {"front", "back"}),
        ({"label": ["tier=back"]}, {"back"}),
        ({"scope": ["swarm"]}, set()),
        ({"dangling": ["1"]}, {"front", "back"}),
        ({"dangling": ["false"]}, {"bridge", "host", "none"}),
        ({"id": ["nosuch"]}, set()),
    ],
)
def test_filters(api: Any, filters: dict[str, list[str]], names: set[str]) -> None:
    for name in ("front", "back"):
        api.post("/networks/create", {"Name": name, "Labels": {"tier": name}})
    assert names == {each["Name"] for each in api.get("/networks", filters=filters).json()}


def test_pruning(api: Any, check: Any) -> None:
    for name in ("front", "back"):
        api.post("/networks/create", {"Name": name, "Labels": {"tier": name}})
    assert {"NetworksDeleted": None} == api.post("/networks/prune", filters={"until": ["1h"]}).json()
    pruned = api.post("/networks/prune", filters={"label!": ["tier=front"]})
    check("POST", "/networks/prune", 200, pruned.json())
    assert {"NetworksDeleted": ["back"]} == pruned.json()
    assert {"NetworksDeleted": ["front"]} == api.post("/networks/prune").json()


REFUSED: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/networks/create", {}, 500, "invalid name: "),
    (
        "POST",
        "/networks/create",
        {"Name": 5},
        400,
        "json: cannot unmarshal number into Go struct field NetworkCreateRequest.Name of type string",
    ),
    ("POST", "/networks/create", {"Name": "host"}, 403, "operation is not permitted on predefined host network "),
    ("POST", "/networks/create", {"Name": "x", "Driver": "nosuch"}, 404, 'plugin "nosuch" not found'),
    (
        "POST",
        "/networks/create",
        {"Name": "x", "IPAM": {"Config": [{"Subnet": "junk"}]}},
        500,
        "Invalid subnet junk : invalid CIDR address: junk",
    ),
    ("DELETE", "/networks/bridge", None, 403, "bridge is a pre-defined network and cannot be removed"),
    ("DELETE", "/networks/nosuch", None, 404, "network nosuch not found"),
    ("GET", "/networks/nosuch", None, 404, "network nosuch not found"),
    ("POST", "/networks/bridge/connect", {"Container": "nosuch"}, 404, "No such container: nosuch"),
    ("POST", "/networks/bridge/disconnect", {"Container": "nosuch"}, 404, "No such container: nosuch"),
    ("POST", "/networks/bridge/connect", {}, 400, 'invalid name or ID supplied: ""'),
    (
        "GET",
        "/networks?filters=" + json.dumps({"type": ["x"]}).replace('"', "%22").replace(" ", ""),
        None,
        400,
        "invalid filter: 'type'='x'",
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "message"), REFUSED)
def test_refusals(api: Any, method: str, path: str, body: Any, status: int, message: str) -> None:
    answer = api.request(method, path, body)
    assert (status, message) == (answer.status, answer.message)


def test_names_that_stand_for_several(api: Any) -> None:
    first = api.post("/networks/create", {"Name": "n1"}).json()["Id"]
    second = api.post("/networks/create", {"Name": "n1"}).json()
    assert f"Network with name n1 (id : {first}) already exists" == second["Warning"]
    for method, message in (
        ("GET", "2 matches found based on name: network n1 is ambiguous"),
        ("DELETE", "network n1 is ambiguous (2 matches found based on name)"),
    ):
        answer = api.request(method, "/networks/n1")
        assert (400, message) == (answer.status, answer.message)
    again = api.post("/networks/create", {"Name": "n1", "CheckDuplicate": True})
    assert (409, "network with name n1 already exists") == (again.status, again.message)


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command line")
@pytest.mark.parametrize(
    "command",
    [
        "create --subnet 10.211.9.0/24 --label a=b --opt com.docker.network.driver.mtu=1400 NAME; inspect NAME",
        "create --internal --attachable --subnet 10.211.9.0/24 --gateway 10.211.9.9 NAME; inspect NAME; rm NAME",
        "create --subnet 10.211.9.0/24 --ip-range 10.211.9.128/25 NAME; inspect NAME; ls --filter name=NAME",
        "create --subnet junk NAME",
        "create --subnet 10.211.9.0/24 --gateway 10.212.0.1 NAME",
        "create -d nosuch NAME",
        "create host",
        "rm bridge",
        "rm NAME",
        "inspect NAME",
        "inspect none host",
        "connect bridge NAME",
        "disconnect bridge NAME",
        "ls --filter type=odd",
        "create -o com.docker.network.bridge.enable_icc=maybe --subnet 10.211.9.0/24 NAME",
    ],
)
def test_the_command_line_shows_what_it_shows_of_dockerd(api: Any, dockers: Any, command: str) -> None:
    name = f"onggi-{secrets.token_hex(4)}"
    try:
        ours, theirs = (_outputs(host, command.replace("NAME", name)) for host in (api.host, dockers.host))
    finally:
        for host in (api.host, dockers.host):
            _outputs(host, f"rm {name}")
    assert theirs == ours


def _outputs(host: str, commands: str) -> list[tuple[int, str]]:
    """Status and output of each `docker network` command, without what differs from run to run."""
    found = []
    for command in commands.split(";"):
        argv = ["docker", "-H", host, "network", *command.split()]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        text = re.sub(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b", "ID", done.stdout + done.stderr)
        found.append((done.returncode, re.sub(r'"Created": "[^"]*"', '"Created": "THEN"', text)))
    return found
