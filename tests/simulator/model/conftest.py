"""Runs a scenario with a log, so that a test can ask what happened when."""

from collections.abc import Callable
from typing import Any

import pytest

from simulator.datacenter.platforms import PlatformProfile
from simulator.eventlog import MemoryLog
from simulator.model import Model, RunRecord
from simulator.scenario import Scenario


class Ran:
    """A run, its record and its events."""

    def __init__(self, scenario: Scenario, profile: PlatformProfile, **how: Any) -> None:
        log = MemoryLog("test", profile.name)
        self.record: RunRecord = Model(scenario, profile, **{"seed": 5, "log": log, **how}).run()
        self.events = log.events

    def times(self, kind: str, **facts: Any) -> list[float]:
        """When events of `kind` with these facts happened."""
        return [
            event.seconds
            for event in self.events
            if event.kind == kind and all(event.facts.get(name) == value for name, value in facts.items())
        ]

    def facts(self, kind: str) -> list[dict[str, Any]]:
        """What is known of the events of `kind`."""
        return [event.facts for event in self.events if event.kind == kind]


@pytest.fixture(scope="session")
def run_logged() -> Callable[..., Ran]:
    """Simulates one replication of a scenario on a platform, with its log."""
    return Ran
