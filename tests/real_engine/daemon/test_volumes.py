"""The API's calls under /volumes, held against Docker's description and against dockerd."""

import json
import os
import re
import shutil
import subprocess

import pytest
from daemons import busybox_tar, dockers_daemon, our_daemon

DOCKER = shutil.which("docker")


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory):
    """Docker's daemon; its containerd needs a short path."""
    with dockers_daemon(tmp_path_factory.mktemp("dockerd")) as daemon:
        yield daemon


def test_a_life(api, check):
    created = api.post("/volumes/create", {"Name": "v1", "Labels": {"a": "b"}})
    assert 201 == created.status
    check("POST", "/volumes/create", 201, created.json())
    assert created.json() == api.get("/volumes/v1").json()
    listed = api.get("/volumes", filters={"label": ["a=b"]})
    check("GET", "/volumes", 200, listed.json())
    assert {"Volumes": [created.json()], "Warnings": None} == listed.json()
    assert 204 == api.delete("/volumes/v1").status
    assert (404, "get v1: no such volume") == (api.get("/volumes/v1").status, api.get("/volumes/v1").message)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (
            {"Name": "a"},
            400,
            "create a: volume name is too short, names should be at least two alphanumeric characters",
        ),
        ({"Name": "v1", "DriverOpts": {"foo": "bar"}}, 400, 'create v1: invalid option: "foo"'),
        (
            {"Name": "v1", "Driver": "nosuch"},
            404,
            'create v1: error looking up volume plugin nosuch: plugin "nosuch" not found',
        ),
        ([], 400, "json: cannot unmarshal into Go value of type volume.CreateOptions"),
        (
            {"Name": "v1", "Labels": {"a": 3}},
            400,
            "json: cannot unmarshal into Go struct field CreateOptions.Labels of type map[string]string",
        ),
        (b"{", 400, "invalid JSON: unexpected EOF"),
    ],
)
def test_what_cannot_be_created(api, body, status, message):
    headers = {"Content-Type": "application/json"} if isinstance(body, bytes) else None
    answer = api.request("POST", "/volumes/create", body, headers)
    assert (status, message) == (answer.status, answer.message)
    assert [] == api.get("/volumes").json()["Volumes"]


def test_removing(api, daemon):
    api.post("/volumes/create", {"Name": "v1"})
    daemon.volumes.refer("v1", "c1")
    assert (409, "remove v1: volume is in use - [c1]") == (
        api.delete("/volumes/v1").status,
        api.delete("/volumes/v1").message,
    )
    assert 404 == api.delete("/volumes/nosuch").status
    assert 204 == api.delete("/volumes/nosuch", force=1).status


def test_prune_of_an_older_client_takes_names_too(api, check):
    api.post("/volumes/create", {"Name": "named"})
    api.post("/volumes/create", {})
    pruned = api.post("/volumes/prune").json()
    check("POST", "/volumes/prune", 200, pruned)
    assert 1 == len(pruned["VolumesDeleted"])
    api.version = "/v1.41"
    assert 400 == api.post("/volumes/prune", filters={"all": ["true"]}).status
    assert {"VolumesDeleted": ["named"], "SpaceReclaimed": 0} == api.post("/volumes/prune").json()


def test_bad_filters_and_cluster_volumes(api):
    assert (400, "invalid filter 'x'") == (
        api.get("/volumes", filters={"x": ["y"]}).status,
        api.get("/volumes", filters={"x": ["y"]}).message,
    )
    assert 503 == api.request("PUT", "/volumes/v1?version=1", {}).status


def test_events_and_disk_usage(api, daemon, check):
    with daemon.events.subscribe() as subscription:
        api.post("/volumes/create", {"Name": "v1"})
        api.delete("/volumes/v1")
        assert [("volume", "create", "v1"), ("volume", "destroy", "v1")] == [
            (event.type, event.action, event.actor_id) for event in subscription.take()
        ]
    api.post("/volumes/create", {"Name": "v2"})
    assert {"Size": 0, "RefCount": 0} == daemon.disk_usage("volume")["Volumes"][0]["UsageData"]


@pytest.mark.peer
@pytest.mark.root
@pytest.mark.skipif(DOCKER is None, reason="needs the docker command line")
def test_the_command_line_says_the_same_of_both(api, dockerd):
    name = f"onggi-test-{os.getpid()}"
    commands = [
        ["create", name],
        ["create", "--label", "a=b", name],
        ["inspect", name],
        ["create", "x y"],
        ["create", "-o", "foo=bar", name + "2"],
        ["ls", "-q", "--filter", f"name={name}"],
        ["ls", "--filter", "nosuch=x"],
        ["rm", name],
        ["rm", name],
        ["rm", "-f", name],
        ["inspect", name],
    ]

    def outputs(host: str, mountpoint: str) -> list[tuple[int, str, str]]:
        found = []
        for command in commands:
            done = subprocess.run([str(DOCKER), "-H", host, "volume", *command], capture_output=True, text=True)
            output = done.stdout
            if command[0] == "inspect" and done.returncode == 0:
                (volume,) = json.loads(output)
                assert volume.pop("CreatedAt").endswith("Z")
                assert mountpoint == volume.pop("Mountpoint")
                output = json.dumps(volume, sort_keys=True)
            found.append((done.returncode, output, done.stderr.replace("Invalid filter", "invalid filter")))
        return found

    ours = outputs(api.host, f"{api.daemon.config.data_root}/volumes/{name}/_data")
    info = subprocess.run(
        [str(DOCKER), "-H", dockerd.host, "info", "-f", "{{.DockerRootDir}}"], capture_output=True, text=True
    )
    assert outputs(dockerd.host, f"{info.stdout.strip()}/volumes/{name}/_data") == ours


# What volumes do in containers. $D is docker, $R runs a container without network, $HERE a directory. That c2 uses v1,
# once c1 is gone, dockerd 20.10 has forgotten; so nobody looks.
_SCRIPT = r"""
printf 'FROM bb\nRUN mkdir -p /data/sub && echo from-image > /data/f && ln -s f /data/l && chmod 1770 /data && \
chown 5:6 /data/f\nVOLUME /data /other\n' > $HERE/Dockerfile
$D build -q -t img $HERE >/dev/null
$R -v v1:/data img sh -c 'stat -c "%n %a %u:%g" /data /data/*; cat /data/l'
$R -v v1:/data:ro img touch /data/x
$R -v v2:/data:nocopy img ls /data
$D create --name c1 -v v1:/d1 -v $HERE:/d2:ro --tmpfs /t img true >/dev/null
$D inspect -f "$MOUNTS" c1 | sort
$D volume rm v1
$D create --name c2 --volumes-from c1:ro img true >/dev/null
$D inspect -f "$MOUNTS" c2 | sort
$D volume ls -q --filter dangling=false
$D rm -v c1
$D volume ls -q --filter dangling=false | grep -v v1
$D rm -v c2
$D volume ls -q
$R --mount type=bind,src=/nonexist,dst=/x bb true
$R -v relative/path:/x bb true
$R -v v1:relative bb true
$R -v v1:/x:bogus bb true
$R -v v1:/x -v v2:/x bb true
$R --mount type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=0700 bb sh -c 'grep " /x " /proc/mounts; stat -c %a /x'
$R -v $HERE/Dockerfile:/one/file bb head -n 1 /one/file
$R --tmpfs /t:foo=bar bb true
$R -v v1:/data bb sh -c 'mkdir a; mkdir /data/a; echo x > /data/a/b'
$R --read-only -v v1:/data bb sh -c 'cat /data/a/b; touch /data/ok && echo writable'
$R -v $HERE/made/here:/x bb touch /x/file; ls $HERE/made/here
$D volume create -o type=tmpfs -o device=tmpfs -o o=size=1m,uid=7 tm
$R -v tm:/x bb sh -c 'grep " /x " /proc/mounts; stat -c %u /x'
$D volume create -o type=none -o o=bind -o device=$HERE/made bound
$R -v bound:/x bb ls /x
$D volume create -o type=none -o o=bind -o device=/nonexist bad
$R -v bad:/x bb true
$D volume rm v1 v2 tm bound bad
ls $HERE/made/here
grep -c $HERE /proc/self/mountinfo
"""


@pytest.mark.root
@pytest.mark.peer
@pytest.mark.skipif(DOCKER is None, reason="needs the docker command line")
def test_volumes_in_containers_are_the_same(tmp_path, dockerd):
    import docker

    def output(name: str, daemon) -> str:
        client = docker.APIClient(daemon.host)
        client.import_image_from_data(
            busybox_tar(tmp_path / "image"), repository="bb", tag="latest", changes='CMD ["sh"]'
        )
        client.close()
        here = tmp_path / name / "here"
        here.mkdir(parents=True)
        variables = {
            **os.environ,
            "D": f"{DOCKER} -H {daemon.host}",
            "R": f"{DOCKER} -H {daemon.host} run --rm --network none",
            "HERE": str(here),
            "MOUNTS": "{{range .Mounts}}{{.Type}} {{.Destination}} {{.Mode}} {{.RW}} {{.Propagation}} {{.Driver}}"
            "\n{{end}}",
        }
        done = subprocess.run(
            ["sh", "-c", _SCRIPT],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
        )
        text = re.sub(r"\b[0-9a-f]{64}\b", "ID", done.stdout).replace(str(here), "HERE")
        return re.sub(r"/\S+?/volumes/(\w+)/_data", r"VOLUMES/\1", text)

    with our_daemon(tmp_path / "ours") as daemon:
        ours = output("ours", daemon)
    assert output("docker", dockerd).splitlines() == ours.splitlines()
