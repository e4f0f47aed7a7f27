"""What `RUN --mount=type=cache` keeps between builds."""

from pathlib import Path

from real_engine.images.build.run_mounts import CacheDirectories, parse_mount


def test_caches_are_removed_when_nobody_uses_them_and_what_a_crash_left_too(tmp_path: Path) -> None:
    caches = CacheDirectories(tmp_path)
    mount = parse_mount("type=cache,target=/c")
    with caches.borrowed(mount) as directory:
        (directory / "file").write_bytes(b"12345")
        assert ([], 0) == caches.remove_unused()
    (tmp_path / f".{directory.name}.removed/full").mkdir(parents=True)  # of an engine that was killed at it
    assert ([directory.name], 5) == caches.remove_unused()
    assert [] == list(tmp_path.iterdir())
    assert ([], 0) == CacheDirectories(tmp_path / "nosuch").remove_unused()
