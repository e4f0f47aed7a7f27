"""Whole builds, with steps that run in containers of the engine."""

import json
import stat
import threading

import pytest

from real_engine.errors import EngineError, InvalidParameter, NotImplementedHere
from real_engine.images.build.stage import BuildFailed

pytestmark = pytest.mark.root

ABSENT = "file not found in build context or excluded by .dockerignore"
UNKNOWN_OWNER = "unable to convert uid/gid chown string to host mapping"


def built(workshop, dockerfile, files=None, /, **options):
    """A build that must succeed."""
    result = workshop.build(dockerfile, files, **options)
    if result.failure is not None:
        raise result.failure
    return result


def failed(workshop, dockerfile, files=None, /, **options):
    """What a build that must fail said last."""
    result = workshop.build(dockerfile, files, **options)
    assert result.failure is not None
    return str(result.failure)


def history(workshop, image):
    return [entry["created_by"] for entry in workshop.image(image).config["history"]][1:]


def test_what_a_build_says_and_leaves(workshop):
    dockerfile = 'FROM bb\nRUN echo out; echo err >&2; touch /f\nCMD ["sh"]\n'
    result = built(workshop, dockerfile, tags=("some/name:1", "other"))
    image = workshop.image("some/name:1")
    assert image.id == result.image == workshop.image("other:latest").id
    (step,) = workshop.steps.ran
    assert ["/bin/sh", "-c", "echo out; echo err >&2; touch /f"] == step
    lines = result.text.splitlines()
    assert "Step 1/3 : FROM bb" == lines[0]
    assert f" ---> {workshop.image('bb').id[7:19]}" == lines[1]
    assert "Step 2/3 : RUN echo out; echo err >&2; touch /f" == lines[2]
    assert lines[3].startswith(" ---> Running in ")
    assert {"out", "\x1b[91merr"} <= set(lines[4:6])
    assert f"Removing intermediate container {lines[3].split()[-1]}" in result.text
    assert [
        f"Successfully built {image.id[7:19]}",
        "Successfully tagged some/name:1",
        "Successfully tagged other:latest",
    ] == lines[-3:]
    assert {"aux": {"ID": image.id}} in result.lines
    assert [
        "/bin/sh -c echo out; echo err >&2; touch /f",
        '/bin/sh -c #(nop)  CMD ["sh"]',
    ] == history(workshop, image.id)
    assert (0o644, 0, 0, "") == workshop.files(image.id)["f"]
    assert workshop.image("bb").id == workshop.image(image.parent).parent
    assert {} == workshop.steps.created


def test_a_quiet_build_says_only_the_id(workshop):
    result = built(workshop, "FROM bb\nRUN echo hi\n", quiet=True, tags=("q",))
    assert [{"stream": f"{result.image}\n"}] == result.lines


@pytest.mark.parametrize(
    ("line", "path", "expected"),
    [
        ("COPY a /x", "x", (0o644, 0, 0, "A")),
        ("COPY a /x/", "x/a", (0o644, 0, 0, "A")),
        ("COPY a /tmp", "tmp/a", (0o644, 0, 0, "A")),
        ("COPY a x", "w/x", (0o644, 0, 0, "A")),
        ("COPY a .", "w/a", (0o644, 0, 0, "A")),
        ("COPY d /new", "new/s/c", (0o600, 0, 0, "C")),
        ("COPY d /new", "new", (0o755, 0, 0, "")),
        ("COPY d /new", "new/up", (0o777, 0, 0, "../a")),
        ("COPY d/up /file", "file", (0o644, 0, 0, "A")),
        ("COPY . /all", "all/d/b", (0o755, 0, 0, "B")),
        ("COPY d/* /new/", "new/c", (0o600, 0, 0, "C")),
        ("COPY d/[a-b] /new/", "new/b", (0o755, 0, 0, "B")),
        ('COPY ["with space", "/a b/"]', "a b/with space", (0o644, 0, 0, "S")),
        ("COPY --chown=user a /x", "x", (0o644, 1000, 1001, "A")),
        ("COPY --chown=user:staff a /x", "x", (0o644, 1000, 50, "A")),
        ("COPY --chown=7:8 --chmod=4711 a /x", "x", (0o4711, 7, 8, "A")),
        ("COPY --chmod=700 d /new", "new/s", (0o700, 0, 0, "")),
        ("ADD archive.tgz /un", "un/inner/file", (0o640, 5, 6, "T")),
        ("ADD --chown=1:2 archive.tgz /un", "un/inner/file", (0o640, 1, 2, "T")),
        ("ADD a /x", "x", (0o644, 0, 0, "A")),
        ("ADD d /new/", "new/s/c", (0o600, 0, 0, "C")),
        ("COPY <<EOF /x\na $V \\$V\nEOF", "x", (0o644, 0, 0, "a v $V\n")),
        ("COPY <<'EOF' /x\na $V\nEOF", "x", (0o644, 0, 0, "a $V\n")),
        ("COPY <<-one <<-two a /x/\n\t1\n\tone\n\t2\n\ttwo", "x/two", (0o644, 0, 0, "2\n")),
        ("COPY $V /x", "x", (0o644, 0, 0, "v")),
        ("WORKDIR /deep/er", "deep/er", (0o755, 0, 0, "")),
        ("WORKDIR sub", "w/sub", (0o755, 0, 0, "")),
        ("RUN echo $V > /tmp/f", "tmp/f", (0o644, 0, 0, "v\n")),
        ("RUN pwd > f", "w/f", (0o644, 0, 0, "/w\n")),
        ("RUN <<EOF\nprintf '%s ' one $V > /f\nprintf two >> /f\nEOF", "f", (0o644, 0, 0, "one v two")),
        ("RUN cat > /f <<EOF\nhello $V\nEOF", "f", (0o644, 0, 0, "hello v\n")),
        ('SHELL ["/bin/sh", "-c", "echo $0 > /f"]\nRUN me', "f", (0o644, 0, 0, "me\n")),
        ("USER user\nRUN id -u > /tmp/f", "tmp/f", (0o644, 1000, 100, "1000\n")),
        ("ENV V=w$V\nRUN echo $V > /f", "f", (0o644, 0, 0, "wv\n")),
        ("ARG V\nRUN echo $V > /f", "f", (0o644, 0, 0, "v\n")),
        ("ARG W=$V-x\nRUN echo $W > /f", "f", (0o644, 0, 0, "v-x\n")),
    ],
)
def test_files_that_an_instruction_makes(workshop, line, path, expected):
    files = {
        "a": "A",
        "d": workshop.directory(0o750),
        "d/b": ("B", 0o755, 0),
        "d/up": workshop.link("../a"),
        "d/s": workshop.directory(0o711),
        "d/s/c": ("C", 0o600, 0),
        "with space": "S",
        "v": "v",
        "archive.tgz": workshop.archive({"inner/file": "T"}),
    }
    result = built(workshop, f"FROM bb\nENV V=v\nWORKDIR /w\n{line}\n", files)
    assert expected == workshop.files(result.image)[path]


def test_a_document_that_is_a_program_of_its_own(workshop):
    result = built(workshop, "FROM bb\nRUN <<EOF\n#!/bin/cat\nitself\nEOF\n")
    assert "#!/bin/cat\nitself\n" in result.text


def test_copying_into_what_is_there(workshop):
    dockerfile = "FROM bb\nRUN mkdir /real /d; ln -s /real /link; echo old > /d/f; mkdir /d/was; touch /d/was/x\n"
    files = {"s": workshop.directory(), "s/f": "new", "s/was": "a file now", "one": "1"}
    result = built(workshop, dockerfile + "COPY s /d\nCOPY one /link/\nCOPY one /link/deeper/two\n", files)
    found = workshop.files(result.image)
    assert ("new", "a file now", "1", "1") == tuple(
        found[path][3] for path in ("d/f", "d/was", "real/one", "real/deeper/two")
    )
    assert "link/one" not in found


def test_links_in_the_context_and_image_do_not_lead_outside(workshop):
    secret = workshop.root / "secret"
    secret.write_text("of the host")
    escape = "../" * 30 + str(secret)[1:]
    for name in (str(secret), escape):
        message = failed(workshop, "FROM bb\nCOPY l /x\n", {"l": workshop.link(name)})
        assert "file not found in build context" in message
    dockerfile = f"FROM bb\nRUN ln -s {workshop.root} /out; ln -s {escape} /file\n"
    result = built(workshop, dockerfile + "COPY a /out/\nCOPY a /file\n", {"a": "A"})
    assert "of the host" == secret.read_text()
    assert not (workshop.root / "a").exists()
    assert "A" == workshop.files(result.image)[f"{str(workshop.root)[1:]}/a"][3]


def test_a_context_that_climbs_out_is_refused(workshop):
    message = failed(workshop, "FROM bb\n", {"../evil": "x"})
    assert "outside" in message
    assert not (workshop.root / "evil").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "COPY nosuch /x",
            f"COPY failed: {ABSENT}: stat nosuch: file does not exist",
        ),
        ("COPY ../x /x", "COPY failed: forbidden path outside the build context: ../x ()"),
        ("COPY nos* /x", "COPY failed: no source files were specified"),
        (
            "COPY a b /x",
            "When using COPY with more than one source file, the destination must be a directory and end with a /",
        ),
        ("COPY http://127.0.0.1:1/x /q", "COPY failed: source can't be a URL for COPY"),
        (
            "ADD http://127.0.0.1:1/x /q",
            'ADD failed: Get "http://127.0.0.1:1/x": dial tcp 127.0.0.1:1: connect: connection refused',
        ),
        ("COPY --from=5 a /b", "invalid from flag value 5: index out of bounds"),
        (
            "COPY --chown=nosuch a /b",
            f"{UNKNOWN_OWNER}: can't find uid for user nosuch: no such user: nosuch",
        ),
        (
            "COPY --chmod=8 a /b",
            "invalid chmod parameter: '8'. it should be octal string and between 0 and 07777",
        ),
        ("COPY a /etc/passwd/x", "failed to copy files: /etc/passwd/x: not a directory"),
        ("STOPSIGNAL FOO", "Invalid signal: FOO"),
        ("EXPOSE x", "Invalid containerPort: x"),
        ('USER "x', 'failed to process "\\"x": unexpected end of statement while looking for matching double-quote'),
        ("WORKDIR /etc/passwd", "Cannot mkdir: /etc/passwd is not a directory"),
        ("RUN exit 3", "The command '/bin/sh -c exit 3' returned a non-zero code: 3"),
        ("FROM $X", "base name ($X) should not be blank"),
        ("FROM bb:FOO!", "invalid reference format"),
        ("RUN --mount=type=foo,target=/x true", 'dockerfile line 2: unsupported mount type "foo"'),
        ("RUN --mount=type=cache true", "dockerfile line 2: invalid mount: target path is required"),
    ],
)
def test_what_fails(workshop, line, message):
    assert message == failed(workshop, f"FROM bb\n{line}\n", {"a": "A", "b": "B"})


def test_a_failed_step_has_a_code_and_keeps_its_container_unless_told(workshop):
    result = workshop.build("FROM bb\nRUN exit 7\n")
    assert isinstance(result.failure, BuildFailed)
    assert 7 == result.failure.code
    assert 1 == len(workshop.steps.created)
    workshop.build("FROM bb\nRUN exit 7\n", force_remove=True)
    assert 1 == len(workshop.steps.created)


def test_only_what_changed_is_built_again(workshop):
    dockerfile = 'FROM bb\nENV A=1\nCOPY one /one\nRUN echo $A > /f\nCOPY two /two\nRUN touch /g\nCMD ["x"]\n'
    files = {"one": "1", "two": ("2", 0o644, 5)}
    first = built(workshop, dockerfile, files)
    assert not any(first.cached)
    again = built(workshop, dockerfile, files)
    assert ([False, *[True] * 6], first.image) == (again.cached, again.image)
    touched = built(workshop, dockerfile, {**files, "two": ("2", 0o644, 99)})
    assert first.image == touched.image, "a file's time says nothing"
    changed = built(workshop, dockerfile, {**files, "two": "other"})
    assert [False, True, True, True, False, False, False] == changed.cached
    mode = built(workshop, dockerfile, {**files, "two": ("2", 0o600, 5)})
    assert [False, True, True, True, False, False, False] == mode.cached
    assert not any(built(workshop, dockerfile, files, no_cache=True).cached)
    assert [False, False] == built(workshop, "FROM bb\nENV A=2\n").cached


def test_the_newest_of_equal_images_is_taken(workshop):
    built(workshop, "FROM bb\nENV A=1\n")
    second = built(workshop, "FROM bb\nENV A=1\n", no_cache=True)
    assert second.image == built(workshop, "FROM bb\nENV A=1\n").image


def test_build_arguments_and_the_cache(workshop):
    dockerfile = "FROM bb\nARG V=default\nRUN echo $V > /f\n"
    first = built(workshop, dockerfile, arguments={"V": "1", "unknown": "u"})
    assert "[Warning] One or more build-args [unknown] were not consumed\n" in first.text
    assert "|1 V=1 /bin/sh -c echo $V > /f" == history(workshop, first.image)[-1]
    assert "1\n" == workshop.files(first.image)["f"][3]
    assert [False, True, True] == built(workshop, dockerfile, arguments={"V": "1"}).cached
    assert [False, True, False] == built(workshop, dockerfile, arguments={"V": "2"}).cached
    assert "default\n" == workshop.files(built(workshop, dockerfile, arguments={"V": None}).image)["f"][3]
    proxy = built(workshop, "FROM bb\nRUN echo $HTTP_PROXY > /f\n", arguments={"HTTP_PROXY": "p:1"})
    assert "p:1\n" == workshop.files(proxy.image)["f"][3]
    assert built(workshop, "FROM bb\nRUN echo $HTTP_PROXY > /f\n", arguments={"HTTP_PROXY": "p:2"}).cached[1]
    assert "HTTP_PROXY" not in json.dumps(workshop.image(proxy.image).config["config"])


def test_arguments_before_the_first_stage(workshop):
    dockerfile = 'ARG BASE=nosuch\nARG T=outer\nFROM $BASE\nRUN echo "[$T]" > /a\nARG T\nRUN echo "[$T]" > /b\n'
    result = built(workshop, dockerfile, arguments={"BASE": "bb"})
    found = workshop.files(result.image)
    assert ("[]\n", "[outer]\n") == (found["a"][3], found["b"][3])
    assert "Step 1/6 : ARG BASE=nosuch" in result.text


def test_stages(workshop):
    dockerfile = """FROM bb AS maker
RUN mkdir /out; echo made > /out/file; ln -s file /out/link; chmod 4750 /out/file; ln /out/file /out/hard
FROM maker AS more
RUN echo more > /out/more
FROM scratch
COPY --from=maker /out /one/
COPY --from=1 /out/more /two
COPY --from=bb /etc/passwd /three
COPY --from=maker /out/l* /four/
"""
    result = built(workshop, dockerfile)
    found = workshop.files(result.image)
    assert (0o4750, 0, 0, "made\n") == found["one/file"]
    assert (0o4750, 0, 0, "made\n") == found["one/hard"]
    assert (0o777, 0, 0, "file") == found["one/link"]
    assert ("more\n", "made\n") == (found["two"][3], found["four/link"][3])
    assert found["three"][3].startswith("root:")
    assert "bin/busybox" not in found
    assert [2, 4, 9] == [
        built(workshop, dockerfile, target=target).text.count("Step ") for target in ("MAKER", "1", "2")
    ]
    assert "failed to reach build target no in Dockerfile" == failed(workshop, dockerfile, target="no")
    assert all(built(workshop, dockerfile).cached[index] for index in (1, 3, 5, 6, 7, 8))


def test_a_changed_stage_changes_what_is_copied_from_it(workshop):
    dockerfile = "FROM bb AS a\nCOPY x /x\nRUN touch /other\nFROM bb\nCOPY --from=a /x /y\nRUN true\n"
    built(workshop, dockerfile, {"x": "1"})
    other = built(workshop, dockerfile, {"x": "2"})
    assert [False, False, False, False, False, False] == other.cached
    assert all(built(workshop, dockerfile, {"x": "1"}).cached[index] for index in (1, 2, 4, 5))


def test_names_of_stages_are_unique(workshop):
    assert "a stage name already used" == failed(workshop, "FROM bb as a\nFROM bb as a\n")


def test_scratch_alone_is_no_image(workshop):
    assert "No image was generated. Is your Dockerfile empty?" == failed(workshop, "FROM scratch\n")
    image = workshop.image(built(workshop, 'FROM scratch\nCMD ["x"]\n').image)
    assert ("", []) == (image.parent, image.config["rootfs"]["diff_ids"])
    assert [True] == [any(variable.startswith("PATH=") for variable in image.config["config"]["Env"])]
    assert [False, True] == built(workshop, 'FROM scratch\nCMD ["x"]\n').cached


def test_triggers(workshop):
    built(workshop, "FROM bb\nONBUILD COPY a /a\nONBUILD RUN cat /a > /b\n", tags=("base",))
    result = built(workshop, "FROM base\nRUN true\n", {"a": "A"}, tags=("child",))
    assert "# Executing 2 build triggers\n" in result.text
    assert "A" == workshop.files("child")["b"][3]
    assert not workshop.image("child").config["config"]["OnBuild"]
    assert 2 == len(workshop.image("base").config["config"]["OnBuild"])


def test_labels_and_the_author(workshop):
    result = built(workshop, "FROM bb\nMAINTAINER me\nLABEL a=1\n", labels={"z": "$x", "b": "2"})
    image = workshop.image(result.image)
    assert ({"a": "1", "b": "2", "z": "$x"}, "me") == (image.labels, image.config["author"])
    assert ["LABEL b=2", "LABEL z=$x"] == [line.split("  ")[1] for line in history(workshop, result.image)[-2:]]


def test_entrypoint_takes_the_commands_place(workshop):
    for dockerfile, command in (
        ('FROM bb\nENTRYPOINT ["e"]\n', None),
        ('FROM bb\nCMD ["c"]\nENTRYPOINT ["e"]\n', ["c"]),
        ('FROM bb\nENTRYPOINT ["e"]\nCMD ["c"]\n', ["c"]),
    ):
        config = workshop.image(built(workshop, dockerfile).image).config["config"]
        assert (["e"], command) == (config["Entrypoint"], config["Cmd"])


def test_a_step_runs_without_entry_point_and_health_check(workshop):
    dockerfile = 'FROM bb\nENTRYPOINT ["nosuch"]\nHEALTHCHECK CMD x\nRUN touch /f\n'
    config = workshop.image(built(workshop, dockerfile).image).config["config"]
    assert (["nosuch"], ["CMD-SHELL", "x"]) == (config["Entrypoint"], config["Healthcheck"]["Test"])


def test_a_step_that_changes_nothing_makes_no_layer(workshop):
    image = workshop.image(built(workshop, "FROM bb\nRUN true\nWORKDIR /tmp\n").image)
    assert workshop.image("bb").diff_ids == image.diff_ids
    assert [True, True] == [entry.get("empty_layer") for entry in image.config["history"][1:]]


def test_removals_reach_the_image(workshop):
    result = built(workshop, "FROM bb\nRUN rm /etc/group; rm -r /tmp; mkdir /tmp\n")
    found = workshop.files(result.image)
    assert {"etc/.wh.group", "tmp"} <= set(found)
    assert 0 == stat.S_IMODE(found["etc/.wh.group"][0]) & 0o7000


def test_cache_mounts_outlive_the_build_and_are_in_no_layer(workshop):
    line = "RUN --mount=type=cache,target=/cache{0} echo {1} >> /cache/log; cat /cache/log > /seen\n"
    for word, seen in (("one", "one\n"), ("two", "one\ntwo\n")):
        result = built(workshop, "FROM bb\n" + line.format("", word))
        found = workshop.files(result.image)
        assert seen == found["seen"][3]
        assert not [path for path in found if path.startswith("cache")]
    (entry,) = workshop.builder.caches.entries()
    assert (8, False) == (entry["Size"], entry["InUse"])
    assert ([entry["ID"]], 8) == workshop.builder.prune()
    assert [] == workshop.builder.caches.entries()


def test_bind_mounts_show_the_context_or_an_image(workshop):
    dockerfile = """FROM bb AS other
RUN echo from the stage > /data
FROM bb
RUN --mount=target=/src,rw cat /src/a > /a; echo no > /src/a; touch /src/new
RUN --mount=type=bind,from=other,source=/data,target=/mnt/data cat /mnt/data > /b
RUN --mount=type=bind,source=a,target=/one if echo x > /one; then exit 1; fi; cat /one > /c
RUN --mount=type=tmpfs,target=/scratch echo x > /scratch/x
"""
    files = {"a": "A"}
    result = built(workshop, dockerfile, files)
    found = workshop.files(result.image)
    assert ("A", "from the stage\n", "A") == tuple(found[path][3] for path in "abc")
    assert not [path for path in found if path.split("/")[0] in ("src", "mnt", "one", "scratch")]
    assert result.image == built(workshop, dockerfile, files).image
    assert not built(workshop, dockerfile, {"a": "B"}).cached[3], "what is bound belongs to the step"


def test_secrets_cannot_come(workshop):
    assert "s" == workshop.files(built(workshop, "FROM bb\nRUN --mount=type=secret,id=s printf s > /f\n").image)["f"][3]
    result = workshop.build("FROM bb\nRUN --mount=type=secret,id=s,required=true true\n")
    assert isinstance(result.failure, NotImplementedHere)
    assert str(result.failure).startswith("dockerfile line 2: secret s: not found")


def test_the_network_of_a_step(workshop):
    built(workshop, "FROM bb\nRUN --network=none true\nRUN true\n", network="host")
    assert ["none", "host"] == [config["NetworkMode"] for config in workshop.steps.host_configs]


def test_limits_reach_the_step(workshop):
    built(workshop, "FROM bb\nRUN true\n", memory_bytes=1 << 26, cpu_quota=5, extra_hosts=("a:1.2.3.4",), shm_bytes=9)
    (config,) = workshop.steps.host_configs
    assert (1 << 26, 5, ["a:1.2.3.4"], 9) == tuple(
        config[name] for name in ("Memory", "CpuQuota", "ExtraHosts", "ShmSize")
    )


@pytest.mark.parametrize("script", ["sleep 60", "while true; do echo x; done"], ids=["silent", "talkative"])
def test_a_client_that_goes_away_ends_the_build(workshop, script):
    gone = threading.Event()
    timer = threading.Timer(0.3, gone.set)
    timer.start()
    result = workshop.build(f"FROM bb\nRUN {script}\n", cancelled=gone.is_set)
    timer.join()
    assert "Build cancelled" == str(result.failure)
    assert {} == workshop.steps.created


def test_several_builds_at_once(workshop):
    results = []

    def work(number):
        results.append(workshop.build(f"FROM bb\nCOPY f /f\nRUN echo {number} > /n\n", {"f": str(number % 2)}))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [None] * 4 == [result.failure for result in results]
    assert {"0\n", "1\n", "2\n", "3\n"} == {workshop.files(result.image)["n"][3] for result in results}


def test_the_ignore_file_takes_the_dockerfile_out(workshop):
    files = {".dockerignore": "Dockerfile\n.dockerignore\n", "a": "A"}
    found = workshop.files(built(workshop, "FROM bb\nCOPY . /c/\n", files).image)
    assert ["c/a"] == sorted(path for path in found if path.startswith("c/"))
    kept = workshop.files(built(workshop, "FROM bb\nCOPY . /c/\n", {"a": "A"}).image)
    assert ["c/Dockerfile", "c/a"] == sorted(path for path in kept if path.startswith("c/"))


def test_where_the_dockerfile_is(workshop):
    assert "Cannot locate specified Dockerfile: X" == failed(workshop, "FROM bb\n", dockerfile="X")
    built(workshop, "nonsense", {"sub/Other": "FROM bb\nENV a=1\n"}, dockerfile="sub/Other")
    escape = {"D": workshop.link("/etc/passwd")}
    assert "Cannot locate specified Dockerfile: D" == failed(workshop, "FROM bb\n", escape, dockerfile="D")


def test_cache_from_an_image_that_has_no_parents(workshop):
    dockerfile = "FROM bb\nENV A=1\nCOPY a /a\nRUN touch /f\nENV B=2\n"
    first = built(workshop, dockerfile, {"a": "A"}, tags=("old",))
    config = workshop.store.config_bytes(first.image)
    layers = workshop.image("old").diff_ids
    chain = [first.image]
    while workshop.image(chain[-1]).parent != workshop.image("bb").id:
        chain.append(workshop.image(chain[-1]).parent)
    twin = json.loads(config)
    twin["comment"] = "as if it had been pulled"
    pulled = workshop.store.create(twin)
    assert "" == pulled.parent
    assert layers == pulled.diff_ids
    for image in chain:
        workshop.store.remove(image, force=True, prune=False)
    assert [False] * 5 == built(workshop, dockerfile, {"a": "A"}, no_cache=True).cached
    again = built(workshop, dockerfile, {"a": "A"}, cache_from=(pulled.id, "nosuch"))
    assert ([False, *[True] * 4], pulled.id) == (again.cached, again.image)


def test_invalid_tags_are_refused_before_anything_is_done(workshop):
    result = workshop.build("FROM bb\nRUN true\n", tags=("UPPER",))
    assert isinstance(result.failure, InvalidParameter)
    assert [] == result.lines == workshop.steps.ran


def test_an_image_that_cannot_be_pulled(workshop):
    result = workshop.build("FROM nosuch:1\n")
    assert isinstance(result.failure, EngineError)
    assert "pull access denied for nosuch:1" in str(result.failure)
