"""The main job: from measurements to profiles, from profiles and a scenario to a comparison with its evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from classroom.recordings import Recording
from classroom.report.headline import Figure, headline
from simulator.datacenter.memory import Density, density
from simulator.datacenter.platforms import PlatformProfile
from simulator.evidence.calibration import calibrate_all
from simulator.evidence.curves import CurvePoint
from simulator.evidence.literature import validate_literature
from simulator.evidence.validation import Validation, validate
from simulator.experiments import Progress, compare
from simulator.results import Comparison
from simulator.scenario import Scenario

DEFAULT_PLATFORMS = ("container", "vm-kvm", "vm-cloud")
"""The container, a minimal guest under KVM, and a rented VM with a full operating system."""


@dataclass(frozen=True)
class Compared:
    """All that a report is made of.

    Attributes:
        scenario: what was asked.
        recording: the measurements that it stands on.
        profiles: of the platforms compared: calibrated where measured, published where not.
        densities: idle instances of one image on one machine of the scenario.
        comparison: what was simulated.
        validation: the model's predictions beside the same measurements.
        curves: its predictions beside published curves; the table of scaling is left to `onggi validate`, for its time.
    """

    scenario: Scenario
    recording: Recording
    profiles: Mapping[str, PlatformProfile]
    densities: Mapping[str, Density]
    comparison: Comparison
    validation: Validation
    curves: Sequence[CurvePoint] = ()

    @property
    def figures(self) -> dict[str, dict[str, Figure]]:
        """Platform to metric to figure: the headline."""
        return headline(self.comparison, self.profiles, self.densities)

    def to_dict(self) -> dict[str, Any]:
        """For `onggi compare --json`. The same measurements, scenario and seed give the same."""
        provenance = self.recording.measurements.provenance
        return {
            "platforms": {
                name: {metric: figure.to_dict() for metric, figure in figures.items()}
                for name, figures in self.figures.items()
            },
            "differences": [
                {
                    "metric": difference.metric,
                    "first": difference.first,
                    "second": difference.second,
                    "value": difference.value,
                    "low": difference.low,
                    "high": difference.high,
                    "unit": difference.unit,
                    "kind": difference.kind,
                    "verdict": difference.verdict,
                }
                for difference in self.comparison.differences
            ],
            "measurements": {
                "host": provenance.host,
                "recorded_at": provenance.recorded_at,
                "fingerprint": provenance.fingerprint,
            },
            "scenario": self.scenario.name,
            "seed": self.comparison.seed,
            "replications": max(len(result.replications) for result in self.comparison.results.values()),
            "warm_up_seconds": max(result.warm_up_seconds for result in self.comparison.results.values()),
            "unstable": {
                name: result.stability for name, result in self.comparison.results.items() if result.stability
            },
        }


def compare_platforms(
    scenario: Scenario,
    recording: Recording,
    platforms: Sequence[str] = DEFAULT_PLATFORMS,
    *,
    seed: int,
    replications: int | None = None,
    workers: int = -1,
    progress: Progress | None = None,
) -> Compared:
    """Calibrate, simulate and validate.

    Args:
        scenario: what is asked.
        recording: the measurements to calibrate on and to validate against.
        platforms: names of measured or shipped platforms, or paths of profiles.
        seed, replications, workers, progress: as in `simulator.experiments.compare`.

    Raises:
        SimulatorError: a platform that there is not, or measurements that cannot be calibrated on.
    """
    measured = calibrate_all(recording.measurements)
    chosen = [measured.get(name) or PlatformProfile.from_toml(name) for name in platforms]
    profiles = {profile.name: profile for profile in chosen}
    comparison = compare(scenario, chosen, seed=seed, replications=replications, workers=workers, progress=progress)
    densities = {name: density(profile, scenario.machines.spec) for name, profile in profiles.items()}
    validation, curves = validate(recording.measurements), validate_literature(scale_out=False)
    return Compared(scenario, recording, profiles, densities, comparison, validation, curves)
