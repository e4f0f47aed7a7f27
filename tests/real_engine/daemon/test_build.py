"""The API's calls for builds, as a client of the daemon sees them."""

import io
import json
import os
import tarfile
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.root


def context(dockerfile, files=None):
    """A build context as a tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, text in {"Dockerfile": dockerfile, **(files or {})}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


def build(api, dockerfile, files=None, headers=None, /, **query):
    return api.request(
        "POST",
        "/build?" + "&".join(f"{name}={value}" for name, value in query.items()),
        context(dockerfile, files),
        {"Content-Type": "application/x-tar", **(headers or {})},
    )


def left_behind(root: Path):
    return os.listdir(root / "builds")


SCRATCH = "FROM scratch\nCOPY a /a\nLABEL x=1\n"


def test_lines_and_the_image(api, daemon):
    answer = build(api, SCRATCH, {"a": "A"}, t="built:1", labels="%7B%22l%22%3A%22v%22%7D")
    assert (200, "application/json") == (answer.status, answer.headers["Content-Type"])
    assert answer.body.endswith(b"\r\n")
    assert b"\r\n" in answer.body.splitlines(keepends=True)[0]
    lines = answer.lines()
    assert ["Step 1/4 : FROM scratch", "\n", " ---> \n"] == [line["stream"] for line in lines[:3]]
    image = daemon.images.resolve("built:1")
    assert {"aux": {"ID": image.id}} in lines
    assert "Successfully tagged built:1\n" == lines[-1]["stream"]
    assert {"x": "1", "l": "v"} == image.labels
    assert [] == left_behind(daemon.config.data_root)


def test_it_publishes_the_name(api, daemon):
    build(api, SCRATCH, {"a": "A"}, t="named:1")
    subscription = daemon.events.subscribe(since=0)
    try:
        found = [(event.type, event.action, event.attributes.get("name")) for event in subscription.take()]
    finally:
        subscription.close()
    assert ("image", "tag", "named:1") in found


@pytest.mark.parametrize(
    ("dockerfile", "query", "status", "message"),
    [
        ("FROM x\nFOO y\n", {}, 400, "dockerfile parse error line 2: unknown instruction: FOO"),
        ("", {}, 400, "the Dockerfile (Dockerfile) cannot be empty"),
        (SCRATCH, {"dockerfile": "X"}, 500, "Cannot locate specified Dockerfile: X"),
        (SCRATCH, {"target": "q"}, 400, "failed to reach build target q in Dockerfile"),
        (SCRATCH, {"squash": "1"}, 400, "squash is only supported with experimental mode"),
        (SCRATCH, {"buildargs": "x"}, 400, "error reading build args: invalid character 'x' looking for beginning"),
        (SCRATCH, {"version": "2"}, 400, "DOCKER_BUILDKIT=0"),
        (SCRATCH, {"memory": "x"}, 400, "strconv.ParseInt"),
        (SCRATCH, {"t": "UPPER"}, 400, "must be lowercase"),
        (SCRATCH, {"remote": "git%40github.com:a/b.git"}, 400, "a git repository can't be a build context here"),
        (SCRATCH, {"outputs": '%5B%7B"Type":"tar"%7D%5D'.replace('"', "%22")}, 501, "no other outputs"),
    ],
)
def test_what_is_wrong_before_the_first_line_is_a_status(api, daemon, dockerfile, query, status, message):
    answer = build(api, dockerfile, {"a": "A"}, **query)
    assert status == answer.status
    assert message in answer.message
    assert [] == left_behind(daemon.config.data_root)


@pytest.mark.parametrize("body", [b"no tar at all" * 100, context(SCRATCH)[:700]])
def test_a_context_that_is_damaged(api, daemon, body):
    answer = api.request("POST", "/build", body, {"Content-Type": "application/x-tar"})
    assert 400 == answer.status
    assert [] == left_behind(daemon.config.data_root)


def test_what_is_wrong_later_is_a_line(api, daemon):
    answer = build(api, "FROM scratch\nCOPY nosuch /x\n")
    assert 200 == answer.status
    last = answer.lines()[-1]
    assert last["error"] == last["errorDetail"]["message"]
    assert last["error"].startswith("COPY failed: file not found in build context")
    assert [] == left_behind(daemon.config.data_root)


def test_quietly(api, daemon):
    answer = build(api, SCRATCH, {"a": "A"}, q=1, t="quiet")
    assert [{"stream": daemon.images.resolve("quiet").id + "\n"}] == answer.lines()
    failed = build(api, "FROM scratch\nCOPY nosuch /x\n", q=1).lines()
    assert "Step 1/2 : FROM scratch" == failed[0]["stream"]
    assert "errorDetail" in failed[-1]


def test_a_base_image_that_is_nowhere(api, daemon):
    """Nothing listens on port 1: the registry can't be reached."""
    last = build(api, "FROM 127.0.0.1:1/nosuch\n").lines()[-1]
    assert "connection refused" in last["error"]


def test_a_compressed_context_in_chunks(api, daemon):
    import gzip

    body = gzip.compress(context(SCRATCH, {"a": "A"}))
    head = "POST /v1.43/build?t=zipped HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[:7], body[7:100], body[100:]) if piece)
    with api.raw(head.encode() + chunks + b"0\r\n\r\n") as connection:
        answer = b""
        while data := connection.recv(65536):
            answer += data
    assert b"Successfully tagged zipped:latest" in answer
    assert daemon.images.resolve("zipped").id


def test_pruning_and_disk_usage(api, daemon):
    assert {"CachesDeleted": None, "SpaceReclaimed": 0} == api.post("/build/prune", filters="").json()
    cache = daemon.config.data_root / "build-cache" / ("a" * 32)
    cache.mkdir(parents=True)
    (cache / "file").write_text("12345")
    (entry,) = api.get("/system/df").json()["BuildCache"]
    assert (cache.name, 5, False) == (entry["ID"], entry["Size"], entry["InUse"])
    assert {"CachesDeleted": [cache.name], "SpaceReclaimed": 5} == api.post("/build/prune").json()
    assert not cache.exists()
    assert 400 == api.post("/build/prune", filters={"nosuch": ["1"]}).status


def test_cancelling_what_does_not_run(api):
    assert 204 == api.post("/build/cancel", id="nosuch").status
    assert 400 == api.post("/build/cancel").status


class _Slow:
    """A runner whose step runs until it is cancelled."""

    def __init__(self):
        self.begun = threading.Event()
        self.removed = []

    def create(self, image, config, host_config):
        return "c" * 64

    def run(self, container_id, output, cancelled):
        from real_engine.images.build.steps import StepResult

        self.begun.set()
        deadline = time.monotonic() + 20
        while not cancelled() and time.monotonic() < deadline:
            time.sleep(0.01)
        return StepResult(137, Path("/nonexistent"), ())

    def remove(self, container_id):
        self.removed.append(container_id)


@pytest.mark.parametrize("how", ["the client goes away", "cancel"])
def test_a_build_ends_with_its_client_or_by_a_word(api, daemon, how):
    slow = _Slow()
    daemon.containers.step_runner = slow
    body = context("FROM scratch\nRUN forever\n")
    head = f"POST /v1.43/build?buildid=one HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = api.raw(head.encode() + body)
    assert slow.begun.wait(10)
    if how == "cancel":
        assert 204 == api.post("/build/cancel", id="one").status
        answer = b""
        while b"0\r\n\r\n" not in answer:
            answer += connection.recv(65536)
        assert b"Build cancelled" in answer
    connection.close()
    deadline = time.monotonic() + 10
    while left_behind(daemon.config.data_root) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ([], ["c" * 64]) == (left_behind(daemon.config.data_root), slow.removed)


def test_proxies_and_credentials_are_nowhere_in_the_image(api, daemon):
    import base64

    secret = base64.urlsafe_b64encode(json.dumps({"r.example": {"username": "u", "password": "hush"}}).encode())
    build(api, SCRATCH, {"a": "A"}, {"X-Registry-Config": secret.decode()}, t="clean")
    image = daemon.images.resolve("clean")
    assert b"hush" not in daemon.images.config_bytes(image.id)
