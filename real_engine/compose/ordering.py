"""Work on many things at once, each after those that it depends on."""

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

_MOST_AT_ONCE = 16

T = TypeVar("T")


def in_order(
    names: Iterable[str],
    needs: Mapping[str, Iterable[str]],
    work: Callable[[str], None],
    most_at_once: int = _MOST_AT_ONCE,
) -> None:
    """Call `work` with each name, once for all that it needs `work` has returned; as many at once as can be.

    After a failure nothing new is begun; what runs is awaited, and the first error raised. What a name needs that is
    not among `names` counts as done.
    """
    waiting = {name: set(needs.get(name, ())) for name in names}
    for name, needed in waiting.items():
        needed.intersection_update(set(waiting) - {name})
    failure: BaseException | None = None
    running: dict[Future[None], str] = {}
    with ThreadPoolExecutor(most_at_once, thread_name_prefix="compose") as pool:
        try:
            while waiting or running:
                ready = [name for name, needed in waiting.items() if not needed] if failure is None else []
                for name in ready:
                    del waiting[name]
                    running[pool.submit(work, name)] = name
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    error = future.exception()
                    failure = failure or error
                    for needed in waiting.values():
                        needed.discard(name)
        except BaseException:  # Ctrl-C: what hasn't begun needn't
            for future in running:
                future.cancel()
            raise
    if failure is not None:
        raise failure


def at_once(items: Iterable[T], work: Callable[[T], None], most_at_once: int = _MOST_AT_ONCE) -> None:
    """Call `work` with each item, many at once; all are tried, and the first error is raised then."""
    failures: list[BaseException] = []
    lock = threading.Lock()

    def attempt(item: T) -> None:
        try:
            work(item)
        except Exception as error:  # told below, when the others are done
            with lock:
                failures.append(error)

    listed = list(items)
    if len(listed) == 1:
        work(listed[0])
        return
    with ThreadPoolExecutor(most_at_once, thread_name_prefix="compose") as pool:
        list(pool.map(attempt, listed))
    if failures:
        raise failures[0]
