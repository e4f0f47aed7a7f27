"""Subordinate ids: what the files grant, and how that becomes the map of a user namespace."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.rootless.identities import Extent, identities, mapping, subordinate_ranges


def test_lines_count_by_name_and_by_number() -> None:
    text = "ann:100:5\n1000:200:3\nbob:300:9\n"

    assert [range(100, 105), range(200, 203)] == subordinate_ranges(text, "ann", 1000)


@pytest.mark.parametrize("line", ["", "ann", "ann:1", "ann:x:5", "ann:1:-5", "ann:1:0", "#ann:1:5", ":1:5"])
def test_lines_that_grant_nothing_are_passed_over(line: str) -> None:
    assert [] == subordinate_ranges(line, "", 1000)
    assert [] == subordinate_ranges(line, "ann", 1000)


def test_root_stands_for_the_user_and_the_rest_follows_without_a_gap() -> None:
    expected = (Extent(0, 1000, 1), Extent(1, 5000, 10), Extent(11, 9000, 5))

    assert expected == mapping(1000, [range(5000, 5010), range(9000, 9005)])


@settings(max_examples=50)
@given(
    own=st.integers(0, 5000),
    granted=st.lists(
        st.builds(lambda first, count: range(first, first + count), st.integers(0, 5000), st.integers(1, 800))
    ),
)
def test_no_id_is_mapped_twice_and_none_is_left_out_inside(own: int, granted: list[range]) -> None:
    extents = mapping(own, granted)
    outside = [each for extent in extents for each in range(extent.outside, extent.outside + extent.count)]
    inside = [each for extent in extents for each in range(extent.inside, extent.inside + extent.count)]

    assert list(range(len(inside))) == inside
    assert len(set(outside)) == len(outside)
    assert own == outside[0]


def _etc(directory: Path, subuid: str, subgid: str) -> Path:
    (directory / "subuid").write_text(subuid)
    (directory / "subgid").write_text(subgid)
    return directory


def _installed(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name if name in programs else None)


def test_both_files_grant_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, "newuidmap", "newgidmap")
    found = identities(4242, 4243, _etc(tmp_path, "4242:100000:65536", "4242:200000:10"))

    assert (Extent(0, 4242, 1), Extent(1, 100_000, 65_536)) == found.uids
    assert (Extent(0, 4243, 1), Extent(1, 200_000, 10)) == found.gids
    assert not found.single
    assert 10 == found.last_gid


@pytest.mark.parametrize(
    ("programs", "subuid", "subgid", "reason"),
    [
        ((), "4242:1:1", "4242:1:1", "no program newuidmap and newgidmap (package uidmap)"),
        (("newuidmap",), "4242:1:1", "4242:1:1", "no program newgidmap (package uidmap)"),
        (("newuidmap", "newgidmap"), "", "4242:1:1", "subuid grants no ids to 4242"),
        (("newuidmap", "newgidmap"), "4242:1:1", "4243:1:1", "subgid grants no ids to 4242"),
    ],
)
def test_else_there_is_one_user_and_it_says_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    programs: tuple[str, ...],
    subuid: str,
    subgid: str,
    reason: str,
) -> None:
    _installed(monkeypatch, *programs)
    found = identities(4242, 4243, _etc(tmp_path, subuid, subgid))

    assert found.single
    assert reason in found.reason
    assert ((Extent(0, 4242, 1),), (Extent(0, 4243, 1),)) == (found.uids, found.gids)


def test_a_missing_file_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, "newuidmap", "newgidmap")

    assert "No such file" in identities(4242, 4242, tmp_path).reason
