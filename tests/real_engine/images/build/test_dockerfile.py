"""Dockerfiles as text: what is an instruction, which line it has, and what is wrong with it, in Docker's words."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.errors import InvalidParameter
from real_engine.images.build import instructions as ins
from real_engine.images.build.dockerfile import parse_dockerfile
from real_engine.images.build.instructions import parse_plan


def plan(text):
    return parse_plan(parse_dockerfile(text.encode()))


def only(text):
    """The one instruction below `FROM x`."""
    (instruction,) = plan(f"FROM x\n{text}\n").stages[0].instructions
    return instruction


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the Dockerfile (Dockerfile) cannot be empty"),
        ("# only\n", "failed to parse Dockerfile: file with no instructions"),
        ("FROM bb\nFOO x\n", "dockerfile parse error line 2: unknown instruction: FOO"),
        ("FROM bb\n\n# c\nRUN a \\\n  b\nFOO x\n", "dockerfile parse error line 6: unknown instruction: FOO"),
        ("FROM\n", "dockerfile parse error line 1: FROM requires either one or three arguments"),
        (
            "FROM bb as 1x\n",
            'line 1: invalid name for build stage: "1x", name can\'t start with a number or contain symbols',
        ),
        ("RUN x\n", "no build stage in current context"),
        (
            "FROM bb\nCOPY x\n",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("FROM bb\nENV\n", "dockerfile parse error line 2: ENV requires at least one argument"),
        (
            "FROM bb\nENV x\n",
            "dockerfile parse error line 2: ENV must have two arguments",
        ),
        (
            "FROM bb\nENV a=b c\n",
            'dockerfile parse error line 2: Syntax error - can\'t find = in "c". Must be of the form: name=value',
        ),
        ("FROM bb\nENV =x\n", "dockerfile parse error line 2: ENV names can not be blank"),
        ("FROM bb\nARG =x\n", "dockerfile parse error line 2: ARG names can not be blank"),
        ("FROM bb\nARG\n", "dockerfile parse error line 2: ARG requires at least one argument"),
        ("FROM bb\nHEALTHCHECK\n", "dockerfile parse error line 2: HEALTHCHECK requires at least one argument"),
        (
            "FROM bb\nHEALTHCHECK FOO\n",
            'dockerfile parse error line 2: Unknown type "FOO" in HEALTHCHECK (try CMD)',
        ),
        (
            "FROM bb\nHEALTHCHECK --interval=1x CMD x\n",
            'dockerfile parse error line 2: time: unknown unit "x" in duration "1x"',
        ),
        (
            "FROM bb\nHEALTHCHECK --interval=1us CMD x\n",
            'dockerfile parse error line 2: Interval "interval" cannot be less than 1ms',
        ),
        (
            "FROM bb\nHEALTHCHECK --retries=0 CMD x\n",
            "dockerfile parse error line 2: --retries must be at least 1 (not 0)",
        ),
        (
            "FROM bb\nHEALTHCHECK --retries=x CMD x\n",
            'dockerfile parse error line 2: strconv.ParseInt: parsing "x": invalid syntax',
        ),
        ("FROM bb\nHEALTHCHECK CMD\n", "dockerfile parse error line 2: Missing command after HEALTHCHECK CMD"),
        ("FROM bb\nHEALTHCHECK NONE x\n", "dockerfile parse error line 2: HEALTHCHECK NONE takes no arguments"),
        ("FROM bb\nSHELL x\n", "dockerfile parse error line 2: SHELL requires the arguments to be in JSON form"),
        ("FROM bb\nSHELL []\n", "dockerfile parse error line 2: SHELL requires at least one argument"),
        ("FROM bb\nONBUILD\n", "dockerfile parse error line 2: ONBUILD requires at least one argument"),
        ("FROM bb\nONBUILD FROM x\n", "dockerfile parse error line 2: FROM isn't allowed as an ONBUILD trigger"),
        (
            "FROM bb\nONBUILD ONBUILD RUN x\n",
            "dockerfile parse error line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        ("FROM bb\nCOPY --foo a b\n", "dockerfile parse error line 2: Unknown flag: foo"),
        ("FROM bb\nCOPY --chown a b\n", "dockerfile parse error line 2: Missing a value on flag: chown"),
        (
            "FROM bb\nCOPY --chown=1 --chown=2 a b\n",
            "dockerfile parse error line 2: Duplicate flag specified: chown",
        ),
        (
            "# escape=x\nFROM bb\n",
            "failed to parse Dockerfile: invalid escape token 'x' does not match ` or \\",
        ),
        (
            "# escape=`\n# escape=`\nFROM bb\n",
            "failed to parse Dockerfile: only one escape parser directive can be used",
        ),
        ("FROM bb\nEXPOSE\n", "dockerfile parse error line 2: EXPOSE requires at least one argument"),
        ("FROM bb\nVOLUME\n", "dockerfile parse error line 2: VOLUME requires at least one argument"),
        ('FROM bb\nVOLUME [""]\n', "dockerfile parse error line 2: VOLUME specified can not be an empty string"),
        ("FROM bb\nUSER\n", "dockerfile parse error line 2: USER requires exactly one argument"),
        ("FROM bb\nWORKDIR\n", "dockerfile parse error line 2: WORKDIR requires exactly one argument"),
        ("FROM bb\nRUN <<EOF\nx\n", "dockerfile parse error line 2: unterminated heredoc"),
        ("FROM bb\nRUN --network=x y\n", 'line 2: invalid network mode "x": it may be default, none or host'),
    ],
)
def test_what_is_wrong(text, message):
    with pytest.raises(InvalidParameter) as raised:
        plan(text)
    assert message in str(raised.value)


def test_json_with_something_else_than_strings():
    with pytest.raises(InvalidParameter, match="line 2: when using JSON array syntax, arrays must be comprised of str"):
        plan("FROM bb\nRUN [1]\n")


def test_lines_that_go_on():
    text = "FROM x\nRUN one \\\n# a comment\n  two \\\n\n  three\nCMD four\n"
    parsed = parse_dockerfile(text.encode())
    assert ["FROM x", "RUN one   two   three", "CMD four"] == [line.original for line in parsed.lines]
    assert [1, 2, 7] == [line.number for line in parsed.lines]
    assert "[WARNING]: Empty continuation line found in:\n    RUN one   two   three" == parsed.warnings[0]


def test_the_escape_directive_and_windows_line_ends():
    parsed = parse_dockerfile(b"\xef\xbb\xbf# Escape=`\r\nFROM x\r\nRUN a `\r\n b \\\r\nCMD c\r\n")
    assert "`" == parsed.escape
    assert ["FROM x", "RUN a  b \\", "CMD c"] == [line.original for line in parsed.lines]


def test_a_directive_after_a_comment_is_a_comment():
    assert "\\" == parse_dockerfile(b"# hello\n# escape=`\nFROM x\n").escape


def test_both_forms_of_a_command():
    assert (("echo hi",), True) == (only("RUN echo hi").words, only("RUN echo hi").shell)
    assert (("echo", "h i"), False) == (only('RUN ["echo", "h i"]').words, only('RUN ["echo", "h i"]').shell)
    assert (("['a']",), True) == (only("RUN ['a']").words, only("RUN ['a']").shell)


def test_flags_and_their_quotes():
    copy = only('COPY --from=one --chown="a b:c" --chmod=755 --link x y /z/')
    assert ("one", "a b:c", "755", ("x", "y"), "/z/") == (
        copy.origin,
        copy.owner,
        copy.mode,
        copy.sources,
        copy.destination,
    )


def test_pairs():
    assert (("a", "1"), ("b", '"x y"'), ("c", "p\\ q")) == only('ENV a=1 b="x y" c=p\\ q').pairs
    assert (("a", "b  c"),) == only("ENV a b  c").pairs
    assert (("a", None), ("b", "1")) == only("ARG a b=1").pairs


def test_a_health_check():
    check = only('HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD ["a b", "c"]')
    assert (("CMD", "a b", "c"), 90 * 10**9, 5 * 10**8, 3) == (
        check.test,
        check.interval,
        check.timeout,
        check.retries,
    )
    assert ("CMD-SHELL", "wget  x") == only("HEALTHCHECK CMD wget  x").test
    assert ("NONE",) == only("HEALTHCHECK none").test


def test_stages_have_names_and_numbers():
    found = plan("ARG V=1\nFROM a AS One\nRUN x\nFROM b\nFROM c as three\nCMD y\n")
    assert ["V"] == [name for argument in found.arguments for name, _ in argument.pairs]
    assert [("a", "one", 1), ("b", "", 0), ("c", "three", 1)] == [
        (stage.base, stage.name, len(stage.instructions)) for stage in found.stages
    ]
    assert [0, 2, 1, None, None] == [found.index(name) for name in ("ONE", "three", "1", "3", "four")]


def test_here_documents():
    text = "FROM x\nRUN <<EOF\necho $a\n  # no comment\nEOF\nCOPY <<-'A' <<B /d/\n\tone\n\tA\ntwo\nB\nCMD z\n"
    run, copy, command = plan(text).stages[0].instructions
    assert "echo $a\n  # no comment\n" == run.documents[0].text
    assert [("A", "one\n", False), ("B", "two\n", True)] == [
        (document.name, document.text, document.expand) for document in copy.documents
    ]
    assert () == copy.sources
    assert ("z",) == command.words
    assert isinstance(only("RUN cat <<< word"), ins.Run)


_WORDS = st.text(st.sampled_from("ab1 \\`'\"$#=[]{}<>-\t/é"), max_size=25)


@given(st.lists(st.tuples(st.sampled_from(["RUN", "ENV", "COPY", "LABEL", "ARG", "CMD", "foo", "#", ""]), _WORDS)))
@settings(max_examples=150, deadline=None)
def test_any_text_is_read_or_refused_by_line(lines):
    text = "FROM x\n" + "\n".join(f"{name} {words}" for name, words in lines)
    try:
        found = plan(text)
    except InvalidParameter as error:
        message = str(error)
    else:
        message = f"line: {len(found.stages)} stage"
    assert re.search("line|Dockerfile", message)


@given(st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8), min_size=1))
@settings(max_examples=60, deadline=None)
def test_a_command_in_json_comes_back(words):
    import json

    assert tuple(words) == only(f"CMD {json.dumps(words)}").words
