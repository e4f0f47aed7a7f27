"""What instructions do to an image's configuration, and the words for it in the history."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.errors import InvalidParameter
from real_engine.images.build import instructions as ins
from real_engine.images.build.build_arguments import BuildArguments
from real_engine.images.build.cache import identity
from real_engine.images.build.configuration import apply_changes, beneath, complete, configure, expand, parse_ports
from real_engine.images.build.dockerfile import parse_line
from real_engine.images.build.go_syntax import parse_duration, quote, show_duration
from real_engine.images.build.shell_words import Lexer


def done(text, config=None, **variables):
    """The configuration and the comment after one instruction."""
    config = complete(config)
    instruction = expand(ins.parse_instruction(parse_line(text)), Lexer(), variables)
    return config, configure(config, instruction)


@pytest.mark.parametrize(
    ("text", "comment", "field", "value"),
    [
        ('ENV A=1 B="two words" C=$A', "ENV A=1 B=two words C=x", "Env", ["A=1", "B=two words", "C=x"]),
        ('LABEL a=b "c d"="e f"', "LABEL a=b c d=e f", "Labels", {"a": "b", "c d": "e f"}),
        ('CMD x "y"', 'CMD ["/bin/sh" "-c" "x \\"y\\""]', "Cmd", ["/bin/sh", "-c", 'x "y"']),
        ('ENTRYPOINT ["a", "b c"]', 'ENTRYPOINT ["a" "b c"]', "Entrypoint", ["a", "b c"]),
        ("EXPOSE 90 80 70-71/udp", "EXPOSE 70-71/udp 80 90", "ExposedPorts", None),
        ('VOLUME ["/a b", "/c"]', "VOLUME [/a b /c]", "Volumes", {"/a b": {}, "/c": {}}),
        ('USER "5"', "USER 5", "User", "5"),
        ("WORKDIR /a/../b//c", "WORKDIR /a/../b//c", "WorkingDir", "/a/../b//c"),
        ("STOPSIGNAL SIGRTMIN+3", "STOPSIGNAL SIGRTMIN+3", "StopSignal", "SIGRTMIN+3"),
        ('SHELL ["/bin/sh", "-ec"]', "SHELL [/bin/sh -ec]", "Shell", ["/bin/sh", "-ec"]),
        ("ONBUILD COPY a  b", "ONBUILD COPY a  b", "OnBuild", ["COPY a  b"]),
        ("onbuild   run x", "ONBUILD run x", "OnBuild", ["run x"]),
        (
            "HEALTHCHECK --interval=5s --retries=3 CMD wget x",
            """HEALTHCHECK &{["CMD-SHELL" "wget x"] "5s" "0s" "0s" '\\x03'}""",
            "Healthcheck",
            {"Test": ["CMD-SHELL", "wget x"], "Interval": 5 * 10**9, "Retries": 3},
        ),
    ],
)
def test_one_instruction(text, comment, field, value):
    config, said = done(text, A="x")
    assert comment == said
    if value is not None:
        assert value == config[field]


def test_ports():
    assert {"70/udp": {}, "71/udp": {}, "80/tcp": {}} == done("EXPOSE $p", p="80 70-71/udp")[0]["ExposedPorts"]
    assert ["80/tcp"] == parse_ports("127.0.0.1:8080:80")
    for text, message in (
        ("x", "Invalid containerPort: x"),
        ("80/foo", "Invalid proto: foo"),
        ("90-80", "Invalid containerPort: 90-80"),
        ("70000", "Invalid containerPort: 70000"),
        ("8080:", "No port specified: 8080:<empty>"),
    ):
        with pytest.raises(InvalidParameter, match=message):
            parse_ports(text)


@pytest.mark.parametrize("name", ["FOO", "a b", "0", "65", "SIGFOO"])
def test_signals_that_do_not_exist(name):
    with pytest.raises(InvalidParameter, match=f"Invalid signal: {name}"):
        done(f"STOPSIGNAL {name}")


@pytest.mark.parametrize(
    ("directory", "path", "expected"),
    [("", "r", "/r"), ("/w", "r", "/w/r"), ("/w", "../..", "/"), ("/w", "/x/", "/x/"), ("/a/../b//c", "d/..", "/b/c")],
)
def test_relative_working_directories(directory, path, expected):
    assert expected == beneath(directory, path)


def test_a_variable_is_set_again_in_its_place():
    config, _ = done("ENV A=2 C=3", {"Env": ["A=1", "B=1"]})
    assert ["A=2", "B=1", "C=3"] == config["Env"]


def test_changes_of_commit():
    changed = apply_changes(
        {"Env": ["A=1"], "Cmd": ["old"]}, ["ENV B=$A", 'ENTRYPOINT ["e"]', "LABEL x=y", "WORKDIR w"]
    )
    assert (["A=1", "B=1"], ["e"], None, {"x": "y"}, "/w") == tuple(
        changed[name] for name in ("Env", "Entrypoint", "Cmd", "Labels", "WorkingDir")
    )
    assert ["c"] == apply_changes({}, ['CMD ["c"]', 'ENTRYPOINT ["e"]'])["Cmd"]
    with pytest.raises(InvalidParameter, match="run is not a valid change command"):
        apply_changes({}, ["RUN x"])
    with pytest.raises(InvalidParameter, match="foo is not a valid change command"):
        apply_changes({}, ["FOO x"])


def test_scopes_of_build_arguments():
    scope = BuildArguments({"given": "g", "unset": None, "HTTP_PROXY": "p", "stray": "s"}, {"TARGETARCH": "amd64"})
    scope.declare_outer("outer", "o")
    scope.declare_outer("given", "default")
    stage = scope.stage()
    assert {"HTTP_PROXY": "p"} == stage.values()
    stage.declare("outer", None)
    stage.declare("given", None)
    stage.declare("unset", "d")
    stage.declare("TARGETARCH", None)
    assert {"outer": "o", "given": "g", "unset": "d", "HTTP_PROXY": "p", "TARGETARCH": "amd64"} == stage.values()
    assert ["HTTP_PROXY=p", "TARGETARCH=amd64", "outer=o", "unset=d"] == stage.beside(["given=hidden"])
    assert [True, False] == [stage.counts_for_cache(name) for name in ("outer", "HTTP_PROXY")]
    assert ["stray"] == scope.unused()
    assert {"HTTP_PROXY": "p"} == scope.stage().values(), "one stage's arguments aren't the next one's"


def test_what_makes_a_step_the_same():
    config = {"Cmd": ["x"], "Env": ["A=1"], "Labels": {"a": "1", "b": "2"}, "WorkingDir": "/w"}
    same = {**config, "Labels": {"b": "2", "a": "1"}, "Hostname": "h", "WorkingDir": "/other", "Entrypoint": []}
    assert identity(config) == identity(complete(same))
    for name, value in (("Cmd", ["y"]), ("Env", []), ("Labels", {"a": "1"}), ("User", "5"), ("Volumes", {"/v": {}})):
        assert identity(config) != identity({**config, name: value})


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1500, "1.5µs"),
        (500 * 10**6, "500ms"),
        (5 * 10**9, "5s"),
        (90 * 10**9, "1m30s"),
        (7200 * 10**9, "2h0m0s"),
        (10**9 + 1, "1.000000001s"),
    ],
)
def test_durations_as_go_writes_them(nanoseconds, text):
    assert text == show_duration(nanoseconds)
    assert nanoseconds == parse_duration(text)


@given(st.integers(0, (1 << 63) - 1))
@settings(max_examples=100, deadline=None)
def test_a_duration_comes_back(nanoseconds):
    assert nanoseconds == parse_duration(show_duration(nanoseconds))


def test_quotation():
    assert r'"a\"b\\\n\x01é\u200b\xff"' == quote('a"b\\\n\x01é\u200b\udcff')
