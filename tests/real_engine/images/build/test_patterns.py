"""Patterns of COPY and of `.dockerignore`."""

import fnmatch
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.errors import InvalidParameter
from real_engine.images.build.patterns import IgnorePatterns, compile_glob, has_wildcards, read_ignore_file


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", "d/a.txt", False),
        ("d/*", "d/a", True),
        ("d/*", "d/a/b", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a-c]x", "zx", True),
        ("[]a]x", "]x", None),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
        ("**/x", "a/x", True),
        ("**/x", "a/b/x", False),
        ("[a", "a", None),
        ("a[!b]", "ac", False),
    ],
)
def test_gos_file_patterns(pattern, path, matches):
    """What Go's `filepath.Match` says; None for a malformed pattern."""
    if matches is None:
        with pytest.raises(InvalidParameter, match="syntax error in pattern"):
            compile_glob(pattern)
    else:
        assert matches is bool(compile_glob(pattern).fullmatch(path))


def test_which_names_are_patterns():
    assert [True, True, True, False, False] == [has_wildcards(name) for name in ("a*", "a?", "[a", "a\\*", "a/b")]


@given(st.text(st.sampled_from("ab*?"), max_size=6), st.text(st.sampled_from("ab"), max_size=6))
@settings(max_examples=150, deadline=None)
def test_without_slashes_and_classes_it_is_the_shells(pattern, name):
    assert fnmatch.fnmatchcase(name, pattern) is bool(compile_glob(pattern).fullmatch(name))


@pytest.mark.parametrize(
    ("lines", "excluded", "kept"),
    [
        (["*.md", "!README.md"], ["a.md"], ["README.md", "d/a.md"]),
        (["**/*.md"], ["a.md", "d/e/a.md"], ["a.txt"]),
        (["node_modules"], ["node_modules", "node_modules/a/b"], ["src/node_modules"]),
        (["**/node_modules"], ["node_modules/x", "src/node_modules/x"], ["src"]),
        (["/d"], ["d/a"], ["e/d"]),
        (["d/", "!d/keep"], ["d/x"], ["d/keep", "d/keep/x"]),
        (["*", "!src"], ["a", "b/c"], ["src", "src/a"]),
        (["!a", "a"], ["a"], ["b"]),
        (["d/**"], ["d/a", "d/a/b"], ["e"]),
        (["a/**/z"], ["a/z", "a/b/z", "a/b/c/z"], ["z", "a/b"]),
        (["*/temp*", "*/*/temp*", "temp?"], ["x/temporary", "x/y/temp", "tempa"], ["temp", "x/y/z/temp"]),
        (["./a", "b/../c"], ["a", "c"], ["b"]),
        (["a.b"], ["a.b"], ["aXb"]),
    ],
)
def test_ignored_files(lines, excluded, kept):
    patterns = IgnorePatterns(read_ignore_file("\n".join(lines)))
    assert ([True] * len(excluded), [False] * len(kept)) == (
        [patterns.excludes(path) for path in excluded],
        [patterns.excludes(path) for path in kept],
    )


def test_an_ignore_file_as_it_is_written():
    text = "\ufeff# comment\n\n  a/b  \n!  ./c\r\n/d/\n #not\n"
    assert ["a/b", "!c", "d", "#not"] == read_ignore_file(text)


def test_an_exception_of_nothing():
    with pytest.raises(InvalidParameter, match='illegal exclusion pattern: "!"'):
        IgnorePatterns(["!"])


_PARTS = st.lists(st.sampled_from(["a", "b", "*", "**", "a*"]), min_size=1, max_size=4)
_PATHS = st.lists(st.sampled_from(["a", "b", "ab", "c"]), min_size=1, max_size=4)


def _reference(parts, path):
    """Whether a pattern matches a whole path, part by part."""
    if not parts:
        return not path
    if parts[0] == "**":
        if len(parts) == 1:
            return bool(path)  # all that is beneath, not the directory itself
        return any(_reference(parts[1:], path[skipped:]) for skipped in range(len(path) + 1))
    if not path:
        return False
    matched = re.fullmatch(parts[0].replace("*", ".*"), path[0])
    return bool(matched) and _reference(parts[1:], path[1:])


@given(st.lists(st.tuples(st.booleans(), _PARTS), max_size=4), _PATHS)
@settings(max_examples=200, deadline=None)
def test_ignoring_as_a_simple_reference_does(rules, path):
    expected = False
    for excluded, parts in rules:
        if any(_reference(parts, path[:count]) for count in range(1, len(path) + 1)):
            expected = excluded
    lines = [("" if excluded else "!") + "/".join(parts) for excluded, parts in rules]
    assert expected is IgnorePatterns(lines).excludes("/".join(path))
