"""The API's calls under /images: held against Docker's description, and against Docker's daemon itself."""

import hashlib
import http.server
import io
import json
import re
import tarfile
import threading
import time

import pytest

from real_engine.filters import Filters
from real_engine.images.tar_reader import TarReader


def make_tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1_700_000_000
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


BASE = make_tar({"etc/hostname": b"onggi\n", "bin/sh": b"#!" * 500})


def send(api, method, path, body=b"", kind="application/x-tar"):
    return api.request(method, path, body, {"Content-Type": kind})


def imported(api, name="app", tag="1", body=BASE, **query):
    """Import an image; returns its id."""
    changes = "".join(f"&changes={change}" for change in query.pop("changes", ("CMD%20sh", "LABEL%20k%3Dv")))
    answer = send(api, "POST", f"/images/create?fromSrc=-&repo={name}&tag={tag}{changes}", body)
    assert 200 == answer.status, answer.body
    return answer.lines()[-1]["status"]


def save(api, *names):
    answer = api.request("GET", "/images/get?" + "&".join(f"names={name}" for name in names))
    assert 200 == answer.status, answer.body
    return answer.body


def child(api, parent, *, layers=(), **config):
    """An image upon another, as a build makes it."""
    store = api.daemon.images
    below = store.resolve(parent)
    made = {
        **below.config,
        "config": {**(below.config["config"] or {}), **config},
        "history": [*below.config["history"], {"created_by": "child", "empty_layer": True}],
    }
    return store.create(made, parent=below.id)


@pytest.fixture
def events(api):
    """Everything that is published under `image` from now on: (action, id, attributes)."""
    subscription = api.daemon.events.subscribe(None, None, Filters({"type": ["image"]}))

    def take():
        return [(event.action, event.actor_id, event.attributes) for event in subscription.take()]

    yield take
    subscription.close()


# --- showing ---------------------------------------------------------------------------------------------------------


def test_the_list_and_the_details_are_as_described(api, check):
    identifier = imported(api)
    listed = api.get("/images/json", **{"shared-size": 1})
    check("GET", "/images/json", 200, listed.json())
    (one,) = listed.json()
    assert (identifier, ["app:1"], [], {"k": "v"}, 1006) == tuple(
        one[key] for key in ("Id", "RepoTags", "RepoDigests", "Labels", "Size")
    )
    details = api.get("/images/app:1/json")
    check("GET", "/images/{name}/json", 200, details.json())
    assert ["sha256:" + hashlib.sha256(BASE).hexdigest()] == details.json()["RootFS"]["Layers"]
    history = api.get("/images/app:1/history")
    check("GET", "/images/{name}/history", 200, history.json())
    assert [(identifier, ["app:1"], 1006)] == [(step["Id"], step["Tags"], step["Size"]) for step in history.json()]


def test_the_list_is_filtered(api):
    first = imported(api, "app", "1")
    time.sleep(0.01)
    second = imported(api, "app", "2", make_tar({"x": b"2"}), changes=("LABEL%20k%3Dw",))
    time.sleep(0.01)
    unnamed = imported(api, "", "", make_tar({"x": b"3"}), changes=())
    third = child(api, second, Cmd=["x"]).id

    def ids(**filters):
        return [one["Id"] for one in api.get("/images/json", filters=filters).json()]

    assert {first, second, unnamed, third} == set(ids())
    assert {unnamed, third} == set(ids(dangling=["true"]))
    assert [second, first] == ids(dangling={"false": True})
    assert [first] == ids(label=["k=v"])
    assert {first, second, third} == set(ids(label=["k"]))
    assert [first] == ids(before=["app:2"], label=["k"])
    assert {unnamed} == set(ids(since=["app:2"]))
    assert [second, first] == ids(reference=["app"])
    assert [second] == ids(reference=["a?p:[2-9]"])
    assert [] == ids(reference=["*/app"])
    assert [one["RepoTags"] for one in api.get("/images/json", filters={"reference": ["app:2"]}).json()] == [["app:2"]]


def test_images_between_are_listed_only_when_asked_for(api):
    base = imported(api, "", "")
    between = child(api, base, Cmd=["1"])
    last = child(api, between.id, Cmd=["2"])
    assert [last.id] == [one["Id"] for one in api.get("/images/json").json()]
    assert {base, between.id, last.id} == {one["Id"] for one in api.get("/images/json", all=1).json()}
    assert [last.id, between.id, base] == [step["Id"] for step in api.get(f"/images/{last.id}/history").json()]


def test_older_clients_see_images_without_a_name_as_none(api):
    imported(api, "", "")
    assert ([], []) == tuple(api.get("/images/json").json()[0][key] for key in ("RepoTags", "RepoDigests"))
    api.version = "/v1.42"
    assert (["<none>:<none>"], ["<none>@<none>"]) == tuple(
        api.get("/images/json").json()[0][key] for key in ("RepoTags", "RepoDigests")
    )


def test_disk_usage_counts_a_shared_layer_once(api, check):
    identifier = imported(api)
    child(api, identifier, Cmd=["x"])
    answer = api.get("/system/df", type="image")
    check("GET", "/system/df", 200, answer.json())
    assert 1006 == answer.json()["LayersSize"]
    shared = {one["SharedSize"] for one in answer.json()["Images"]}
    assert {1006} == shared


# --- naming and removing ---------------------------------------------------------------------------------------------


def test_a_tag_is_given_and_told(api, events):
    identifier = imported(api)
    events()
    assert 201 == api.post("/images/app:1/tag", repo="reg.io:5000/x/y", tag="z").status
    assert [("tag", identifier, {"k": "v", "name": "reg.io:5000/x/y:z"})] == events()
    assert ["app:1", "reg.io:5000/x/y:z"] == api.get(f"/images/{identifier[7:19]}/json").json()["RepoTags"]


def test_the_built_in_image_can_be_named_before_it_was_used(api):
    assert [] == api.get("/images/json").json()
    assert 201 == api.post("/images/onggi/busybox/tag", repo="mine", tag="1").status
    assert ["mine:1", "onggi/busybox:latest"] == sorted(api.get("/images/mine:1/json").json()["RepoTags"])


def test_removing_is_told(api, events, check):
    identifier = imported(api)
    events()
    answer = api.delete("/images/app:1")
    check("DELETE", "/images/{name}", 200, answer.json())
    layer = "sha256:" + hashlib.sha256(BASE).hexdigest()
    assert [{"Untagged": "app:1"}, {"Deleted": identifier}, {"Deleted": layer}] == answer.json()
    assert [
        ("untag", identifier, {"k": "v", "name": identifier}),
        ("delete", identifier, {"name": identifier}),
    ] == events()


def test_prune_takes_what_has_no_name_and_with_all_what_no_container_uses(api, check):
    kept = imported(api, "app", "1")
    imported(api, "", "", make_tar({"x": b"12345"}))
    answer = api.post("/images/prune")
    check("POST", "/images/prune", 200, answer.json())
    assert 5 == answer.json()["SpaceReclaimed"]
    assert [kept] == [one["Id"] for one in api.get("/images/json").json()]
    assert {"ImagesDeleted": None, "SpaceReclaimed": 0} == api.post("/images/prune").json()
    wrong = api.post("/images/prune", filters={"dangling": ["false"], "label!": ["k=v"]})
    assert {"ImagesDeleted": None, "SpaceReclaimed": 0} == wrong.json()
    everything = api.post("/images/prune", filters={"dangling": {"false": True}, "until": ["0s"]})
    assert 1006 == everything.json()["SpaceReclaimed"]
    assert [] == api.get("/images/json").json()


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/images/nothing/json", 404, "No such image: nothing:latest"),
        ("GET", "/images/BAD/json", 400, "must be lowercase"),
        ("GET", "/images/nothing/history", 404, "No such image: nothing:latest"),
        ("DELETE", "/images/nothing", 404, "No such image: nothing:latest"),
        ("POST", "/images/nothing/tag?repo=x", 404, "No such image: nothing:latest"),
        ("POST", "/images/app:1/tag?repo=x&tag=a/b", 400, "invalid tag format"),
        ("POST", "/images/app:1/tag?repo=BAD", 400, "must be lowercase"),
        (
            "POST",
            f"/images/app:1/tag?repo=x@sha256:{'a' * 64}",
            400,
            "refusing to create a tag with a digest reference",
        ),
        ("GET", "/images/nothing/get", 404, "No such image: nothing"),
        ("GET", "/images/get?names=nothing:1", 404, "reference does not exist"),
        ("GET", '/images/json?filters={"x":["y"]}', 400, "invalid filter 'x'"),
        ("GET", '/images/json?filters={"dangling":["x"]}', 400, "invalid filter 'dangling=[x]'"),
        ("GET", '/images/json?filters={"before":["nothing"]}', 404, "No such image: nothing:latest"),
        ("GET", '/images/json?filters={"reference":["["]}', 400, "syntax error in pattern"),
        ("POST", '/images/prune?filters={"x":["y"]}', 400, "invalid filter 'x'"),
        ("POST", "/images/create?fromSrc=-&repo=BAD", 400, "must be lowercase"),
        ("POST", "/images/create?fromSrc=-&changes=RUN%20x", 400, "run is not a valid change command"),
        ("POST", "/images/create?fromSrc=-&platform=windows", 400, "operating system is not supported"),
        ("POST", "/images/create?fromSrc=ftp://x/y", 400, "unsupported protocol scheme"),
        ("POST", "/images/create?fromSrc=http://127.0.0.1:1/x", 500, "connection refused"),
    ],
)
def test_what_is_wrong_is_told_as_docker_tells_it(api, method, path, status, message):
    imported(api)
    answer = api.request(method, path.replace('"', "%22").replace("{", "%7B").replace("}", "%7D"))
    assert (status, True) == (answer.status, message in answer.message), answer.body


# --- archives --------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(api, events):
    identifier = imported(api)
    api.post("/images/app:1/tag", repo="other", tag="2")
    data = save(api, "app:1", "other")
    assert data == save(api, "app:1", "other")
    api.delete(f"/images/{identifier}", force=1)
    events()
    answer = send(api, "POST", "/images/load?quiet=1", data)
    assert (200, "application/json") == (answer.status, answer.headers["Content-Type"])
    assert [{"stream": "Loaded image: app:1\n"}, {"stream": "Loaded image: other:2\n"}] == answer.lines()
    assert [("load", identifier, {"k": "v", "name": identifier})] == events()
    api.get("/images/app:1/get")
    assert ["save"] == [action for action, _, _ in events()]


def test_a_load_tells_how_far_it_is_unless_quiet(api):
    imported(api)
    data = save(api, "app:1")
    api.delete("/images/app:1")
    *steps, last = send(api, "POST", "/images/load", data).lines()
    assert {"stream": "Loaded image: app:1\n"} == last
    layer = hashlib.sha256(BASE).hexdigest()[:12]
    assert {("Loading layer", layer)} == {(step["status"], step["id"]) for step in steps}
    assert len(BASE) == steps[-1]["progressDetail"]["current"] == steps[-1]["progressDetail"]["total"]


def test_what_is_wrong_with_an_archive_is_a_line(api):
    for data in (b"x" * 1000, BASE, save_cut(api)):
        answer = send(api, "POST", "/images/load", data)
        assert 200 == answer.status
        (line,) = [one for one in answer.lines() if "status" not in one]
        assert line["error"] == line["errorDetail"]["message"] != ""


def save_cut(api):
    imported(api)
    return save(api, "app:1")[:2000]


def test_a_client_that_goes_away_while_it_loads_leaves_nothing(api):
    imported(api, body=make_tar({"big": bytes(3_000_000)}))
    data = save(api, "app:1")
    api.delete("/images/app:1")
    connection = api.raw(b"POST /v1.43/images/load HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data))
    connection.sendall(data[: len(data) // 2])
    connection.close()
    partial = api.daemon.images.root / "partial"
    deadline = time.monotonic() + 10
    while list(partial.iterdir()) or list(api.daemon.images.blobs.digests()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [] == api.get("/images/json").json()


def test_an_import_from_an_address(api):
    class Files(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/rootfs.tar" else 404)
            self.send_header("Content-Length", str(len(BASE)))
            self.end_headers()
            self.wfile.write(BASE)

        def log_message(self, *_):
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Files)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"127.0.0.1:{server.server_port}"
    try:
        first, last = api.post("/images/create", fromSrc=f"{address}/rootfs.tar", repo="fetched").lines()
        missing = api.post("/images/create", fromSrc=f"http://{address}/nothing")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert {"status": f"Downloading from http://{address}/rootfs.tar"} == first
    details = api.get("/images/fetched/json").json()
    assert (last["status"], f"Imported from {address}/rootfs.tar") == (details["Id"], details["Comment"])
    assert 500 == missing.status
    assert "404" in missing.message
    assert [] == list((api.daemon.config.data_root / "tmp").iterdir())


def test_an_import_is_told(api, events):
    identifier = imported(api)
    assert [
        ("tag", identifier, {"k": "v", "name": "app:1"}),
        ("import", identifier, {"k": "v", "name": identifier}),
    ] == events()


# --- the same with Docker --------------------------------------------------------------------------------------------

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_HEX = re.compile(r"[0-9a-f]{64}|\b[0-9a-f]{12}\b")


def normalised(value):
    """An answer without what differs from day to day and place to place; ids by the order in which they come."""
    text = _TIME.sub("TIME", json.dumps(value, sort_keys=True))
    known = {}
    text = _HEX.sub(lambda found: known.setdefault(found[0][:12], f"ID{len(known)}"), text)
    return json.loads(
        re.sub(r'("(Created|DockerVersion|LastTagTime|GraphDriver)": )(\d+|"[^"]*"|\{.*?\}, )', r"\1 0", text)
    )


def plain(answer):
    """What an answer says, without the driver's own paths."""
    if not answer.body:
        return answer.status, None
    lines = [json.loads(line) for line in answer.body.splitlines()]
    for line in lines:
        if isinstance(line, dict):
            line.pop("GraphDriver", None)
            line.pop("DockerVersion", None)
    for line in lines:
        for one in line if isinstance(line, list) else [line]:
            if isinstance(one.get("Created"), int):
                one["Created"] = 0
            if "message" in one:  # where dockerd 20.10 words it otherwise than 24, whose API ours is
                one["message"] = re.sub(r" \([^)]*\) must be lowercase", " must be lowercase", one["message"])
                one["message"] = one["message"].replace("Invalid filter", "invalid filter")
                one["message"] = re.sub("^no such image: .*?: ", "", one["message"])
    return answer.status, normalised(lines)


SESSION = [
    ("POST", "/images/create?fromSrc=-&repo=app&tag=1&changes=CMD%20sh&changes=ENV%20A%3D1&message=why", BASE),
    (
        "POST",
        "/images/create?fromSrc=-&repo=app/two&changes=LABEL%20k%3Dv&changes=VOLUME%20/v&changes=EXPOSE%2080",
        BASE,
    ),
    ("POST", "/images/create?fromSrc=-&changes=RUN%20x", BASE),
    ("POST", "/images/app:1/tag?repo=reg.io:5000/x&tag=3", b""),
    ("POST", "/images/nothing/tag?repo=x", b""),
    ("GET", "/images/app:1/json", b""),
    ("GET", "/images/app/two/json", b""),
    ("GET", "/images/app/two:latest/history", b""),
    ("GET", "/images/nothing/json", b""),
    ("GET", "/images/UPPER/json", b""),
    ("GET", "/images/sha256:0000/json", b""),
    ("GET", "/images/nothing/get", b""),
    ("GET", "/images/get?names=app:nothing", b""),
    ("GET", "/images/json?filters=%7B%22reference%22%3A%5B%22app*%22%5D%7D", b""),
    ("GET", "/images/json?filters=%7B%22label%22%3A%5B%22k%3Dv%22%5D%7D", b""),
    ("GET", "/images/json?filters=%7B%22label%22%3A%5B%22k%3Dw%22%5D%7D", b""),
    ("GET", "/images/json?filters=%7B%22dangling%22%3A%7B%22true%22%3Atrue%7D%7D", b""),
    ("GET", "/images/json?filters=%7B%22dangling%22%3A%5B%22x%22%5D%7D", b""),
    ("GET", "/images/json?filters=%7B%22x%22%3A%5B%22x%22%5D%7D", b""),
    ("DELETE", "/images/reg.io:5000/x:3", b""),
    ("DELETE", "/images/reg.io:5000/x:3", b""),
    ("POST", "/images/app:1/tag?repo=second", b""),
    ("DELETE", "/images/{app:1}", b""),
    ("DELETE", "/images/{app:1}?force=1", b""),
    ("POST", "/images/prune", b""),
    ("POST", "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D", b""),
    ("GET", "/images/json?all=1", b""),
]


@pytest.mark.peer
def test_docker_answers_the_same(api, short_path):
    from daemons import dockers_daemon

    api.version = "/v1.41"
    with dockers_daemon(short_path / "docker") as daemon:
        theirs = type(api)(daemon.socket, version="/v1.41")
        for method, path, body in SESSION:
            answers = []
            for one in (theirs, api):
                named = re.sub(r"\{(.*?)\}", lambda name: one.get(f"/images/{name[1]}/json").json()["Id"], path)  # noqa: B023
                answers.append(plain(send(one, method, named, body)))
            assert answers[0] == answers[1], path


@pytest.mark.peer
def test_an_archive_of_ours_holds_what_dockers_holds(api, short_path):
    from daemons import dockers_daemon

    imported(api)
    with dockers_daemon(short_path / "docker") as daemon:
        theirs = type(api)(daemon.socket, version="/v1.41")
        assert {"stream": "Loaded image: app:1\n"} == send(
            theirs, "POST", "/images/load?quiet=1", save(api, "app:1")
        ).lines()[-1]
        again = save(theirs, "app:1")
    reader = TarReader(io.BytesIO(again))
    files = {entry.name: b"".join(piece for _, piece in reader.pieces()) for entry in reader}
    (manifest,) = json.loads(files["manifest.json"])
    assert BASE == files[manifest["Layers"][0]]
    api.delete("/images/app:1")
    assert [{"stream": "Loaded image: app:1\n"}] == send(api, "POST", "/images/load?quiet=1", again).lines()
