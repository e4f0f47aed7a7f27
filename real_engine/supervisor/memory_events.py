"""Being told when a container reaches its memory limit, by cgroup v1 and v2."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from real_engine.linux.inotify import IN_MODIFY, Inotify
from real_engine.supervisor.loop import READABLE, Loop


class MemoryEvents:
    """Watches the memory groups of containers. `told` is called with the container's id, once for each time.

    On v1 the kernel writes to an eventfd of each group; on v2 it modifies `memory.events`, and one inotify instance
    serves all. Source: Documentation/admin-guide/cgroup-v1/memory.rst (section 10) and cgroup-v2.rst.
    """

    def __init__(self, loop: Loop, told: Callable[[str], None]) -> None:
        self._loop, self._told = loop, told
        self._eventfds: dict[str, int] = {}
        self._inotify: Inotify | None = None
        self._watches: dict[int, tuple[str, Path]] = {}
        self._killed: dict[str, int] = {}

    def watch(self, container_id: str, group: Path) -> None:
        """Watch a container's group in the hierarchy that controls memory; it is not watched where that fails.

        (How it ended is known all the same, from the group's own count.)
        """
        with contextlib.suppress(OSError):
            if (group / "memory.oom_control").exists():
                self._watch_v1(container_id, group)
            else:
                self._watch_v2(container_id, group / "memory.events")

    def forget(self, container_id: str) -> None:
        """Watch it no more; before its group is removed, since that would count as an event on v1."""
        eventfd = self._eventfds.pop(container_id, None)
        if eventfd is not None:
            self._loop.forget(eventfd)
            os.close(eventfd)
        for watch, (watched, _) in list(self._watches.items()):
            if watched == container_id:
                del self._watches[watch]
                if self._inotify is not None:
                    self._inotify.remove(watch)
        self._killed.pop(container_id, None)

    def _watch_v1(self, container_id: str, group: Path) -> None:
        eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(group / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                (group / "cgroup.event_control").write_text(f"{eventfd} {control}")
            finally:
                os.close(control)
        except OSError:
            os.close(eventfd)
            raise

        def ready(_: int) -> None:
            os.eventfd_read(eventfd)
            self._told(container_id)

        self._eventfds[container_id] = eventfd
        self._loop.watch(eventfd, READABLE, ready)

    def _watch_v2(self, container_id: str, file: Path) -> None:
        if self._inotify is None:
            self._inotify = Inotify()
            self._loop.watch(self._inotify.fileno(), READABLE, self._modified)
        watch = self._inotify.add(file, IN_MODIFY)
        self._watches[watch] = container_id, file
        self._killed[container_id] = 0

    def _modified(self, _: int) -> None:
        if self._inotify is None:
            return
        for watch in self._inotify.take():
            if watch not in self._watches:
                continue
            container_id, file = self._watches[watch]
            killed = processes_killed(file.parent)
            if killed > self._killed[container_id]:
                self._killed[container_id] = killed
                self._told(container_id)


def processes_killed(group: Path) -> int:
    """How many processes of a memory group the kernel has killed for want of memory; 0 where it doesn't count them."""
    for name in ("memory.events", "memory.oom_control"):
        try:
            lines = (group / name).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
    return 0
