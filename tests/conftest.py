"""What all tests share: where the real thing can be tested, and that in CI it is."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = None
    if sys.platform != "linux":
        reason = "needs Linux: it makes namespaces, mounts and cgroups"
    elif os.geteuid() != 0:
        reason = "needs root: run `sudo make test`"
    if reason:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A test that skips in CI tests nothing for anybody, so it fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("CI") and skipped and exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"CI: {len(skipped)} tests were skipped, and none may be", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def new_children() -> Callable[[], set[int]]:
    """Gives the processes, zombies too, that this one has made since the test began and has not reaped."""

    def children() -> set[int]:
        found = set()
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it ended while we looked
                # The name in parentheses may hold anything; the parent's pid is the second field after it (proc(5)).
                if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                    found.add(int(path.parent.name))
        return found

    before = children()
    return lambda: children() - before


@pytest.fixture(scope="session")
def dockers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Docker's own daemon, one for all tests that compare with it; skips where it is not installed."""
    from daemons import dockers_daemon

    with dockers_daemon(tmp_path_factory.mktemp("dockerd")) as daemon:
        yield daemon


@pytest.fixture
def data_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the data that ship, so that a test may spoil them; ONGGI_DATA names it."""
    import shutil

    copy = tmp_path / "data"
    shutil.copytree(CHECKOUT / "data", copy, ignore=lambda folder, names: [n for n in names if n.startswith(".")])
    monkeypatch.setenv("ONGGI_DATA", str(copy))
    return copy
