"""How long a restart waits."""

import threading
from types import SimpleNamespace

import pytest

from real_engine.daemon.containers import restarting
from real_engine.daemon.containers.restarting import Restarts

_GOOD_RUN = 10_000_000_000  # nanoseconds


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of the timers that were set; none of them runs."""
    found: list[float] = []

    class Timer:
        def __init__(self, seconds: float, *_: object) -> None:
            found.append(seconds)

        def start(self) -> None:
            """Never."""

        def cancel(self) -> None:
            """Nothing to be cancelled."""

    monkeypatch.setattr(restarting, "threading", SimpleNamespace(Timer=Timer, Lock=threading.Lock))
    return found


def test_it_doubles_up_to_a_minute_and_begins_anew_after_a_good_run(waits: list[float]) -> None:
    restarts, record = Restarts(None), SimpleNamespace(id="a")
    for _ in range(12):
        restarts.schedule(record, _GOOD_RUN - 1)
    assert [0.1 * 2**number for number in range(10)] + [60.0, 60.0] == pytest.approx(waits)
    restarts.schedule(record, _GOOD_RUN)
    restarts.schedule(record, 0)
    assert [0.1, 0.2] == waits[12:]


def test_each_container_waits_by_itself_and_a_cancelled_one_begins_anew(waits: list[float]) -> None:
    restarts, one, other = Restarts(None), SimpleNamespace(id="a"), SimpleNamespace(id="b")
    for record in (one, one, other, one):
        restarts.schedule(record, 0)
    restarts.cancel(one)
    restarts.schedule(one, 0)
    assert [0.1, 0.2, 0.1, 0.4, 0.1] == waits
