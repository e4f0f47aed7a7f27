"""A progress bar for what takes longer than a person waits without wondering."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 2.0
"""Work that ends sooner shows no bar."""


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show on standard error how far the work is, once it has taken two seconds, and nothing where that is no terminal.

    Gives a function to call with (steps done, steps in all).
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, visible=False)

        def report(done: int, total: int) -> None:
            late = time.monotonic() - began > PATIENCE_SECONDS
            progress.update(task, completed=done, total=total, visible=late)

        yield report
