"""Words, quotes and variables, as a Dockerfile's instructions read them."""

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.errors import InvalidParameter
from real_engine.images.build.dockerfile import split_words
from real_engine.images.build.shell_words import Lexer

VARIABLES = {"x": "abc/def/abc.tar.gz", "e": "", "y": "two words", "n": "5"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$n", "5"),
        ("${n}x", "5x"),
        ("$nx", ""),
        ("\\$n", "$n"),
        ("'$n'", "$n"),
        ('"$n"', "5"),
        ('"a\\"b"', 'a"b'),
        ('"a\\nb"', "a\\nb"),
        ("a\\nb", "anb"),
        ("$", "$"),
        ("$$", ""),
        ("a$/b", "a$/b"),
        ("${missing}", ""),
        ("${missing:-d $n}", "d 5"),
        ("${e:-d}", "d"),
        ("${e-d}", ""),
        ("${missing-d}", "d"),
        ("${n:+set}", "set"),
        ("${e:+set}", ""),
        ("${e+set}", "set"),
        ("${missing:+set}", ""),
        ("${n:?bad}", "5"),
        ("${e?bad}", ""),
        ("${x#*/}", "def/abc.tar.gz"),
        ("${x##*/}", "abc.tar.gz"),
        ("${x%.*}", "abc/def/abc.tar"),
        ("${x%%.*}", "abc/def/abc"),
        ("${x%/*}", "abc/def"),
        ("${x#nothing}", "abc/def/abc.tar.gz"),
        ("${x/abc/X}", "X/def/abc.tar.gz"),
        ("${x//abc/X}", "X/def/X.tar.gz"),
        ("${x//\\//-}", "abc-def-abc.tar.gz"),
        ("${x/d?f/}", "abc//abc.tar.gz"),
        ("${missing:-${n}}", "5"),
        ("${y}", "two words"),
        ("  spaces  kept ", "  spaces  kept "),
    ],
)
def test_one_word(text, expected):
    assert expected == Lexer().expand(text, VARIABLES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"x', 'failed to process "\\"x": unexpected end of statement while looking for matching double-quote'),
        ("'x", 'failed to process "\'x": unexpected end of statement while looking for matching single-quote'),
        ("${x", "failed to process \"${x\": syntax error: missing '}'"),
        ("${", "failed to process \"${\": syntax error: missing '}'"),
        ("${}", 'failed to process "${}": syntax error: bad substitution'),
        ("${x:-y", "failed to process \"${x:-y\": syntax error: missing '}'"),
        ("${x!y}", 'failed to process "${x!y}": unsupported modifier (!) in substitution'),
        ("${x:=y}", 'failed to process "${x:=y}": unsupported modifier (:=) in substitution'),
        ("${missing:?hm}", 'failed to process "${missing:?hm}": missing: hm'),
        ("${missing?}", 'failed to process "${missing?}": missing: is not allowed to be unset'),
        ("${e:?}", 'failed to process "${e:?}": e: is not allowed to be empty'),
    ],
)
def test_what_makes_no_sense(text, message):
    with pytest.raises(InvalidParameter) as raised:
        Lexer().expand(text, VARIABLES)
    assert message == str(raised.value)


def test_splitting_after_the_variables_were_replaced():
    assert ["a", "two", "words", "two words", "b c"] == Lexer().split("a $y \"$y\" 'b c'", VARIABLES)
    assert ["80", "443/udp"] == Lexer().split("$p", {"p": " 80  443/udp "})


def test_unknown_variables_may_stay():
    lexer = Lexer(keep_unset=True)
    assert "$a ${b:-c} 5" == lexer.expand("$a ${b:-c} $n", VARIABLES)


def test_the_other_escape_character():
    assert "C:\\x 5 $n" == Lexer("`").expand("C:\\x $n `$n", VARIABLES)


_PIECES = st.text(st.characters(codec="utf-8", exclude_categories=("Zs", "Zl", "Zp", "Cc", "Cs")), max_size=12)


@given(st.lists(_PIECES.filter(lambda text: text and "\\" not in text), max_size=6))
@settings(max_examples=80, deadline=None)
def test_what_is_quoted_comes_back(words):
    """The shell's own quoting of words, split again: by us, and first into words that keep their quotes."""
    quoted = " ".join(shlex.quote(word) for word in words)
    assert words == Lexer().split(quoted, {})
    assert words == [Lexer().expand(word, {}) for word in split_words(quoted, "\\")]


@given(st.text(max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_text_is_read_or_refused(text):
    """No text at all leads to another error, and one that has nothing special stays as it is."""
    try:
        result = Lexer().expand(text, VARIABLES)
    except InvalidParameter:
        return
    if not set(text) & set("\\'\"$"):
        assert text == result
