"""A progress bar for what takes longer than a person waits without wondering."""

import threading
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
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, visible=False, total=None)
        # By a clock of its own, so that a first step that takes long is not taken for one that hangs.
        patience = threading.Timer(PATIENCE_SECONDS, progress.update, (task,), {"visible": True})
        patience.daemon = True
        patience.start()
        try:
            yield lambda done, total: progress.update(task, completed=done, total=total)
        finally:
            patience.cancel()
