"""The same contexts built by us and by Docker's own classic builder: the same words, histories and files."""

import http.client
import io
import json
import re
import socket
import tarfile
from urllib.parse import urlencode

import pytest
from daemons import dockers_daemon

pytestmark = [pytest.mark.root, pytest.mark.peer]

EVERYTHING = """# a comment
ARG G=1
FROM scratch AS base
ADD base.tar /
FROM base AS one
ARG G
ARG H=x$G
ENV A=1 B="two words" C=$A
LABEL l1=v1 "l 2"="v 2"
MAINTAINER me
COPY a /x/
COPY --chown=54321:54322 d /new
ADD x.tgz /un
WORKDIR /w
WORKDIR r
RUN echo $H > f; echo err >&2
RUN echo out
RUN ["true"]
USER 5
EXPOSE 90 80-82/udp $A
VOLUME /v1 /v2
STOPSIGNAL TERM
SHELL ["/bin/sh", "-ec"]
HEALTHCHECK --interval=1m30s --retries=3 CMD wget x
HEALTHCHECK CMD ["a b", "c"]
ENTRYPOINT ["a", "b c"]
CMD x "y"
ONBUILD RUN echo trig
FROM scratch
COPY --from=one /x /x/
COPY --from=one /w/r/f /new/[a-k]* /new/s /q/
COPY --from=0 /etc/passwd /p
COPY d/* a /m/
COPY d /n
COPY d/l /followed
COPY . /all
CMD ["x"]
"""

TRIGGERS = """FROM scratch AS base
ADD base.tar /
ONBUILD COPY a /a
ONBUILD RUN cat /a
FROM base
RUN mkdir -p /real && ln -s /real /link && touch /real/f && rm /etc/group
COPY a /link/
COPY a /link/new
COPY a rel/ative
WORKDIR /link/w
RUN rm -r /tmp; pwd -P; id -u
"""

FAILURES = {
    "no such file": "COPY nosuch /x",
    "outside": "COPY ../x /x",
    "nothing matches": "COPY nos* /x",
    "several into one": "COPY a d /x",
    "an address for COPY": "COPY http://127.0.0.1:1/x /q",
    "a link to nothing": "RUN ln -s nowhere /l\nFROM base\nCOPY --from=1 /l /x",
    "no such stage": "COPY --from=5 a b",
    "the stage itself": "COPY --from=1 a b",
    "exit code": "RUN echo before; exit 3",
    "no such command": "RUN nosuch",
    "signal": "STOPSIGNAL FOO",
    "port": "EXPOSE 90-80",
    "protocol": "EXPOSE 80/foo",
    "quote": 'USER "x',
    "unset": "USER ${x:?hm}",
    "unknown": "FOO x",
    "flag": "COPY --foo a b",
    "health": "HEALTHCHECK --interval=1x CMD x",
    "blank": "FROM $X",
    "reference": "FROM bb:FOO!",
    "no name": "ENV =x",
    "heredoc-like": "RUN echo 1 <<< x; false",
}


class _Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("docker", timeout=120)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Docker:
    def __init__(self, path):
        self._path = path

    def _ask(self, method, path, body=None):
        connection = _Connection(self._path)
        connection.request(method, path, body, {"Content-Type": "application/x-tar"})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data

    def build(self, context, **options):
        query = urlencode({"version": 1, "rm": 1, "networkmode": "none", **options})
        status, data = self._ask("POST", f"/build?{query}", context)
        if status != 200:
            return [{"error": json.loads(data)["message"]}]
        return [json.loads(line) for line in data.splitlines()]

    def image(self, name):
        """The image's configuration, and the headers of its files by layer."""
        status, data = self._ask("GET", f"/images/{name}/get")
        assert 200 == status, data
        layers = []
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            manifest = json.load(archive.extractfile("manifest.json"))[0]
            config = json.load(archive.extractfile(manifest["Config"]))
            for path in manifest["Layers"]:
                with tarfile.open(fileobj=archive.extractfile(path)) as layer:
                    layers.append(_listing(layer))
        self._ask("DELETE", f"/images/{name}?force=1")
        return config, layers


@pytest.fixture(scope="module")
def docker(tmp_path_factory):
    with dockers_daemon(tmp_path_factory.mktemp("docker")) as daemon:
        yield _Docker(daemon.host.removeprefix("unix://"))


def _listing(archive):
    found = {}
    for member in archive:
        # Docker's archives cut times to seconds too; those of directories that were made now are left out.
        time = None if member.isdir() or member.mtime > 1_750_000_000 else int(member.mtime)
        content = archive.extractfile(member).read() if member.isreg() else member.linkname
        found[member.name] = (member.type, member.mode & 0o7777, member.uid, member.gid, time, content)
    return found


def _normal(lines):
    """Lines with ids replaced; an id that comes again stays recognisable."""
    known = {}

    def number(match):
        return known.setdefault(match[0], f"ID{len(known)}")

    text = "".join(line.get("stream", "") for line in lines)
    text = re.sub(r"\x1b\[(91|0)m", "", text)  # how what is written comes in pieces is chance
    text = re.sub(r"\b[0-9a-f]{12}\b", number, text)
    errors = [line["error"] for line in lines if "error" in line]
    return text.splitlines(), errors


def _normal_config(config):
    for name in ("created", "docker_version", "container"):
        config.pop(name, None)
    for entry in config["history"]:
        del entry["created"]
    for part in ("config", "container_config"):
        config[part]["Image"] = ""
        config[part]["Hostname"] = bool(config[part]["Hostname"])
    config["rootfs"]["diff_ids"] = len(config["rootfs"]["diff_ids"])
    return config


def _files(workshop):
    return {
        "base.tar": workshop.base(),
        "a": f"A of {workshop.root}",
        "d": workshop.directory(0o750),
        "d/b": ("B", 0o755, 1),
        "d/l": workshop.link("../a"),
        "d/s": workshop.directory(0o711),
        "d/s/c": ("C", 0o600, 0),
        "x.tgz": workshop.archive({"inner/file": "T"}),
    }


def _both(workshop, docker, dockerfile, **options):
    """What we say, what Docker says, and the name of Docker's image."""
    context = {"Dockerfile": dockerfile, **_files(workshop)}
    theirs = docker.build(workshop.context(context).getvalue(), t="compared", **options)
    ours = workshop.build(dockerfile, _files(workshop), tags=("compared",), network="none")
    lines = ours.lines
    if ours.failure is not None:
        lines = [*lines, {"error": str(ours.failure)}]
    return lines, theirs


@pytest.mark.parametrize("dockerfile", [EVERYTHING, TRIGGERS], ids=["everything", "triggers"])
def test_the_same_words_and_the_same_image(workshop, docker, dockerfile):
    ours, theirs = _both(workshop, docker, dockerfile)
    assert _normal(theirs) == _normal(ours)
    assert not _normal(ours)[1]
    config, layers = docker.image("compared")
    image = workshop.image("compared")
    assert _normal_config(config) == _normal_config(json.loads(workshop.store.config_bytes(image.id)))
    for diff_id, expected in zip(image.diff_ids, layers, strict=True):
        with workshop.store.layers.tar(diff_id) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            assert expected == _listing(archive)


def test_the_same_cache(workshop, docker):
    """A second build takes the same steps from the cache, and one of other files the same too."""
    for files in ({}, {}, {"a": "other"}):
        context = {"Dockerfile": EVERYTHING, **_files(workshop), **files}
        theirs = docker.build(workshop.context(context).getvalue())
        ours = workshop.build(EVERYTHING, {**_files(workshop), **files}, network="none").lines
        assert _normal(theirs) == _normal(ours)


@pytest.mark.parametrize("line", FAILURES.values(), ids=FAILURES)
def test_the_same_failures(workshop, docker, line):
    dockerfile = f"FROM scratch AS base\nADD base.tar /\nFROM base\n{line}\n"
    ours, theirs = _both(workshop, docker, dockerfile)
    assert _normal(theirs) == _normal(ours)
    assert _normal(ours)[1]
