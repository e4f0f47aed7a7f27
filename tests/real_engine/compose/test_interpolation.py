"""Variables are filled in as the compose specification says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.compose.environment import read_env_file
from real_engine.compose.interpolation import interpolate
from real_engine.errors import InvalidParameter

VARIABLES = {"A": "a", "EMPTY": "", "B_1": "b"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$A-${A}", "a-a"),
        ("$B_1.x", "b.x"),
        ("$$A $${A}", "$A ${A}"),
        ("${NO:-d}${EMPTY:-d}${A:-d}", "dda"),
        ("${NO-d}${EMPTY-d}${A-d}", "da"),
        ("${NO:+r}${EMPTY:+r}${A:+r}", "r"),
        ("${NO+r}${EMPTY+r}${A+r}", "rr"),
        ("${A:?must}${EMPTY?must}", "a"),
        ("${NO:-${A}}", "a"),
        ("${NO:-${NO2:-$$x}}", "$x"),
        ("${NO:-a}b}", "ab}"),
        ("${NO}", ""),
    ],
)
def test_values(text, expected):
    assert expected == interpolate(text, VARIABLES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${NO:?give one}", "required variable NO is missing a value: give one"),
        ("${EMPTY:?}", "required variable EMPTY is missing a value"),
        ("${A", "a brace is not closed"),
        ("$", "write \\$\\$ for a dollar sign"),
        ("${}", "a variable's name is missing"),
        ("${A!x}", "unknown operator"),
        ("${NO:-" * 40 + "}" * 40, "nested too deeply"),
    ],
)
def test_what_is_wrong(text, message):
    with pytest.raises(InvalidParameter, match=message):
        interpolate(text, VARIABLES)


def test_unset_variables_are_told():
    told = []
    interpolate("$X ${Y} ${Z:-z} $A", VARIABLES, told.append)
    assert ["X", "Y"] == told


@given(st.text())
def test_a_text_whose_dollars_are_doubled_comes_back(text):
    assert text == interpolate(text.replace("$", "$$"), {})


def test_env_files(tmp_path):
    path = tmp_path / "env"
    path.write_text(
        "# comment\n"
        "A=1\n"
        "export B = two words # and a comment\n"
        "C='single $A \\n'\n"
        'D="double $A\\tx \\$A"\n'
        "E=${A}-${OUTSIDE:-none}\n"
        "F\n"
        "G=\n"
        'H="two\nlines"\n'
        "I=a#b\n"
        "J: yaml\n"
    )
    assert {
        "A": "1",
        "B": "two words",
        "C": "single $A \\n",
        "D": "double 1\tx $A",
        "E": "1-o",
        "F": None,
        "G": "",
        "H": "two\nlines",
        "I": "a#b",
        "J": "yaml",
    } == read_env_file(path, {"OUTSIDE": "o"})


@pytest.mark.parametrize(("text", "message"), [("1A=x", "env:1: not of the form"), ("A=1\nB='x", "env:2: a quotation")])
def test_env_files_that_are_none(tmp_path, text, message):
    path = tmp_path / "env"
    path.write_text(text)
    with pytest.raises(InvalidParameter, match=message):
        read_env_file(path, {})


def test_an_env_file_that_is_missing(tmp_path):
    with pytest.raises(InvalidParameter, match="not found"):
        read_env_file(tmp_path / "nosuch", {})
