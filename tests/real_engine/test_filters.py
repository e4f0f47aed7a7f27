import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.errors import InvalidParameter
from real_engine.filters import Filters, parse_filters

words = st.text(min_size=1, max_size=8)
values = st.dictionaries(words, st.lists(words, max_size=4), max_size=4)


@given(values)
def test_both_forms_say_the_same(given_values):
    as_lists = parse_filters(json.dumps(given_values))
    as_maps = parse_filters(json.dumps({key: dict.fromkeys(one, True) for key, one in given_values.items()}))
    for key, wanted in given_values.items():
        assert list(dict.fromkeys(wanted)) == as_lists.get(key) == as_maps.get(key)
    assert set(given_values) == set(as_lists) == set(as_maps)


@pytest.mark.parametrize("text", ["", "{}", "null"])
def test_none_lets_everything_through(text):
    filters = parse_filters(text)
    assert not filters
    assert filters.exact("status", "running")
    assert filters.prefix("id", "abc")
    assert filters.search("name", "abc")
    assert filters.match_labels(None)


def test_a_value_that_is_false_is_not_asked_for():
    assert ["b"] == parse_filters('{"a":{"x":false,"b":true}}').get("a")


@pytest.mark.parametrize("text", ["x", "[]", '{"a":"b"}', '{"a":{"b":1}}', '{"a":[1]}', "[" * 100_000])
def test_what_is_no_filter(text):
    with pytest.raises(InvalidParameter, match=r"^invalid filter$"):
        parse_filters(text)


def test_an_unknown_key_is_named():
    filters = parse_filters('{"label":["a"],"foo":["b"]}')
    with pytest.raises(InvalidParameter, match=r"^invalid filter 'foo'$"):
        filters.check({"label", "status"})
    filters.check({"label", "foo"})


@pytest.mark.parametrize(("given", "expected"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_flags(given, expected):
    assert expected is Filters({"dangling": [given]}).flag("dangling", default=not expected)


@pytest.mark.parametrize("given", [["maybe"], ["true", "false"]])
def test_a_flag_that_is_none(given):
    with pytest.raises(InvalidParameter, match="invalid filter 'dangling="):
        Filters({"dangling": given}).flag("dangling")


def test_a_flag_that_is_not_there_is_the_default():
    assert Filters().flag("dangling", default=True) is True
    assert Filters().flag("dangling") is False


def test_labels_must_all_hold():
    labels = {"a": "1", "b": "2"}
    assert Filters({"label": ["a", "b=2"]}).match_labels(labels)
    assert not Filters({"label": ["a", "b=3"]}).match_labels(labels)
    assert not Filters({"label": ["c"]}).match_labels(labels)
    assert not Filters({"label": ["a"]}).match_labels(None)
    assert not Filters({"label!": ["a=1"]}).match_labels(labels)
    assert Filters({"label!": ["a=2"]}).match_labels(labels)


def test_ways_of_matching():
    filters = Filters({"name": ["^/web", "db"], "id": ["abc"]})
    assert filters.search("name", "/web1")
    assert filters.search("name", "/mydb")
    assert not filters.search("name", "/cache")
    assert filters.prefix("id", "abcdef")
    assert not filters.prefix("id", "xabc")
    assert not filters.exact("id", "abcdef")


def test_an_expression_that_is_none_finds_nothing_but_itself():
    assert not Filters({"name": ["("]}).search("name", "a")
    assert Filters({"name": ["("]}).search("name", "(")
