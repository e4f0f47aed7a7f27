"""Trees that somebody else has made are measured and removed, however they were made."""

import os
from pathlib import Path

import pytest

from real_engine.images.trees import remove_tree, size_bytes


def make_deep(directory: Path, depth: int) -> None:
    """Directories in each other, deeper than a path can say."""
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=place)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)


def test_sizes_count_a_file_with_two_names_once(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/file").write_bytes(b"12345")
    os.link(tmp_path / "a/file", tmp_path / "a/b/same")
    os.truncate(tmp_path / "a/file", 1 << 20)  # as long as it says, though it has no blocks
    (tmp_path / "a/link").symlink_to("/etc")  # as many as its text, and nothing of what it leads to
    assert (1 << 20) + 4 == size_bytes(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        size_bytes(tmp_path / "nosuch")


def test_a_tree_that_was_made_to_exhaust_the_stack(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"12345")
    make_deep(tree, 3000)
    assert 5 == size_bytes(tree)
    remove_tree(tree)
    assert [] == os.listdir(tmp_path)
