"""The published curves against the model: which points it was fitted to, and how far off it is at all others.

| curve | what | fitted | predicted |
|---|---|---|---|
| 1 | start-up while N guests run (LightVM, Fig 4) | the first points, to N = 400 | 600, 800, 995: beyond the fit |
| 2 | creation while N guests run (LightVM, Fig 9) | as few as the form has constants | the others |
| 4 | boot by the size of the image (LightVM, Fig 2) | 1 and 200 MB | up to 990 MB |
| 5 | the isolation ladder (Runtimes-data) | runc, gVisor, Kata with one hypervisor | Kata with two others |

Curve 3 and the memory of the ladder are in `memory_curves`, the table of scaling and balancing in `scale_out`. All of
them together are `literature.validate_literature`.

Nothing here evaluates a formula in the place of the model: a fit gives a platform, and the simulator starts a thousand
instances of it one after another, or one from an image on a disk, and the time that this took is compared.

What the forms mean. Beside N running guests a start costs `a + b N + c N²`: making each guest is some hundred look-ups
in XenStore, each as long as the list of guests (b), and every running guest watches it and makes others look again (c);
see LightVM §4.2. Docker, and control planes without XenStore, have no c; the one without any shared store has no b.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from simulator.datacenter.images import ImageLayer, ImageSpec
from simulator.datacenter.machine import GIB, MIB, MachineSpec
from simulator.datacenter.platforms import Phase, PlatformProfile, Quantity, Startup
from simulator.datacenter.startup import predict_contention, predict_sequence
from simulator.errors import SimulatorError
from simulator.evidence.published import Figure, read_published

CURVES: Mapping[int, str] = {
    1: "start-up while others run (LightVM, Fig 4)",
    2: "creation while others run (LightVM, Fig 9)",
    3: "memory of many (LightVM, Fig 14)",
    4: "boot by image size (LightVM, Fig 2)",
    5: "isolation ladder (Runtimes-data)",
    6: "scale-out and balancing (Kubernetes, Mitzenmacher)",
}
"""What each curve of the literature shows, by its number here."""

LADDER = 5
"""The curve on which each platform is a point."""

LADDER_SOURCE = "Runtimes-data"
"""Of the ladder itself."""

LIGHTVM = MachineSpec(name="LightVM's machine", cores=4, memory_bytes=128 * GIB)
"""Xeon E5-1630 v3, 4 cores, 128 GB (LightVM §6)."""

FITTED: Mapping[tuple[str, str], tuple[int, ...]] = {
    ("start-up", "debian-xen"): (5, 200, 400),
    ("start-up", "tinyx-xen"): (5, 200, 400),
    ("start-up", "minios-xen"): (5, 200, 400),
    ("start-up", "docker"): (5, 400),
    ("create", "xl"): (3, 200, 600),
    ("create", "chaos-xs"): (3, 200, 600),
    ("create", "chaos-xs-split"): (3, 600),
    ("create", "chaos-noxs"): (600,),
    ("create", "lightvm"): (),
}
"""For each line of curves 1 and 2, at which N it is fitted: as many points as its form has constants.

`docker` is the platform `container-dockerd` that ships, whose file says that it was built from these two points, and
`lightvm` the platform `unikernel`, built from the paper's text and from none of them.
"""

_SHIPPED = {("start-up", "docker"): "container-dockerd", ("create", "lightvm"): "unikernel"}
_FITTED_MEGABYTES = (1, 200)


@dataclass(frozen=True)
class CurvePoint:
    """One point of a published curve, and what the model makes of it.

    Attributes:
        curve: its number in `CURVES`.
        platform: as the publication has it.
        condition: under which it holds, e.g. `guests_running=200`.
        unit: of the next two.
        published: the publication's value.
        model: the simulated value.
        relative_error: (model - published) / published.
        fitted: whether the model was fitted to it; then the error says nothing.
        source: of the published value, and how it was read.
        source_name: short name of the publication.
    """

    curve: int
    platform: str
    condition: str
    unit: str
    published: float
    model: float
    relative_error: float
    fitted: bool
    source: str
    source_name: str


@dataclass(frozen=True)
class CurveSummary:
    """How well the model keeps to one line of a curve.

    Attributes:
        curve: its number in `CURVES`.
        platform: which line, see `lines_of`.
        unit: of its points.
        source: short name of the publication.
        points: how many the model was not fitted to.
        median_absolute_relative_error: of those; NaN where there is none.
        worst: the point among them that is furthest off, or None.
        published_ratio: its last point over its first.
        model_ratio: the same of the model.
        same_order: whether the model puts no two points the other way round than the publication. Published points
            that reading the curve cannot tell apart (within 6 %, twice what it leaves open) may be either way.
    """

    curve: int
    platform: str
    unit: str
    source: str
    points: int
    median_absolute_relative_error: float
    worst: CurvePoint | None
    published_ratio: float
    model_ratio: float
    same_order: bool


def curve_point(curve: int, figure: Figure, model: float, *, fitted: bool) -> CurvePoint:
    """The point of `curve` that `figure` and what the model gives make."""
    return CurvePoint(
        curve=curve,
        platform=figure.platform,
        condition=";".join(f"{name}={value}" for name, value in figure.conditions.items()),
        unit=figure.unit,
        published=figure.value,
        model=float(model),
        relative_error=(float(model) - figure.value) / figure.value,
        fitted=fitted,
        source=f"{figure.source}, {figure.place} ({figure.read_from})",
        source_name=figure.source,
    )


def validate_curves() -> tuple[CurvePoint, ...]:
    """Every point of the curves 1, 2, 4 and the start-up of 5, in this order, with what the simulator gives for it.

    Raises:
        SimulatorError: the published figures or the profiles cannot be read, or a fit has no meaning.
    """
    figures = read_published("curves")
    return (
        *_beside_others(1, "start-up", figures),
        *_beside_others(2, "create", figures),
        *_by_image_size([figure for figure in figures if figure.quantity == "boot"]),
        *_ladder(),
    )


def _beside_others(curve: int, quantity: str, figures: Sequence[Figure]) -> Iterator[CurvePoint]:
    """Start one after another up to the largest published N, and compare those that are published."""
    lines: dict[str, dict[int, Figure]] = {}
    for figure in figures:
        if figure.quantity == quantity:
            lines.setdefault(figure.platform, {})[int(figure.conditions["guests_running"])] = figure
    for platform, line in lines.items():
        fitted = FITTED[quantity, platform]
        if (shipped := _SHIPPED.get((quantity, platform))) is not None:
            profile = PlatformProfile.from_toml(shipped)
        else:
            profile = _made_of(platform, growth([(running, line[running].value) for running in fitted], platform))
        took = predict_sequence(LIGHTVM, profile, max(line) + 1)
        for running, figure in line.items():
            yield curve_point(curve, figure, took[running], fitted=running in fitted)


def growth(points: Sequence[tuple[int, float]], name: str) -> Phase:
    """The phase whose work beside N running instances goes through `points` and grows with N in the simplest way.

    Args:
        points: up to three of (N, seconds); one gives a constant, two a straight line, three a parabola.
        name: of the phase.

    Raises:
        SimulatorError: work would fall as N grows, which no phase does.
    """
    running, seconds = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    constants = np.zeros(3)
    constants[: len(points)] = np.linalg.solve(np.vander(running, increasing=True), seconds)
    if (constants < 0).any():
        raise SimulatorError(f"{name}: a fit through {points} has a negative constant; fit fewer or other points")
    base, linear, squared = (float(constant) for constant in constants)
    return Phase(
        name=name,
        cpu_seconds=base,
        cpu_seconds_per_running=linear,
        cpu_seconds_per_running_squared=squared,
        work="fork",
        kind="published",
        source=f"through N = {', '.join(str(count) for count, _ in points)}",
    )


def _by_image_size(figures: Sequence[Figure]) -> Iterator[CurvePoint]:
    """Boot one guest from an image that is read whole. What is fitted: the boot, and how fast the image is read."""
    published = {int(figure.conditions["image_megabytes"]): figure for figure in figures}
    (small, first), (large, second) = ((size, published[size].value) for size in _FITTED_MEGABYTES)
    seconds_per_megabyte = (second - first) / (large - small)
    boot = Phase(
        name="boot",
        cpu_seconds=first - small * seconds_per_megabyte,
        kind="published",
        source="LightVM Fig 2: what is left of the smallest image's boot",
    )
    # The images are in a RAM disk (LightVM §4.1), which has no operations that cost anything by themselves.
    machine = LIGHTVM.model_copy(
        update={"disk_mib_per_second": 1e6 / MIB / seconds_per_megabyte, "disk_operation_seconds": 0.0}
    )
    for size, figure in published.items():
        mib = size * 1e6 / MIB
        image = ImageSpec(
            layers=(ImageLayer(name="guest", compressed_mib=mib, unpacked_mib=mib),),
            unpack_cpu_seconds_per_mib=0.0,
            read_fraction=1.0,
        )
        (took,) = predict_sequence(machine, _made_of(figure.platform, boot), 1, image=image)
        yield curve_point(4, figure, took, fitted=size in _FITTED_MEGABYTES)


def _ladder() -> Iterator[CurvePoint]:
    """One rung after another: what a container needs, and what its isolation adds.

    The rungs of Kata are the same but for the hypervisor, whose own boot Firecracker-data has: fitted with one, the
    others are predicted by their difference to it. That difference is of another machine, and of a smaller guest, so
    an error here is of both. Start-up of Kata 3, another program than Kata 2, is predicted as if it were not.
    """
    startup = {
        (figure.platform, figure.source): figure
        for figure in read_published("startup")
        if figure.quantity == "start-up"
    }

    def seconds(platform: str, source: str = "Runtimes-data") -> float:
        return startup[platform, source].value

    def alone(*parts: tuple[str, float]) -> float:
        phases = [Phase(name=name, cpu_seconds=cpu, kind="published", source="") for name, cpu in parts]
        return float(predict_contention(MachineSpec(), _made_of("rung", *phases), 1)[0])

    runc = seconds("runc")
    gvisor = PlatformProfile.from_toml("container-gvisor")
    yield curve_point(5, startup["runc", "Runtimes-data"], alone(("container", runc)), fitted=True)
    (took,) = predict_contention(MachineSpec(), gvisor, 1)
    yield curve_point(5, startup["gvisor-systrap", "Runtimes-data"], took, fitted=True)
    hypervisors = {
        "kata2-cloud-hypervisor": "cloud-hypervisor",
        "kata2-firecracker": "firecracker",
        "kata2-qemu": "qemu",
        "kata3-qemu": "qemu",
    }
    guest = seconds("kata2-cloud-hypervisor") - runc - seconds("cloud-hypervisor", "Firecracker-data")
    for rung, hypervisor in hypervisors.items():
        boot = seconds(hypervisor, "Firecracker-data")
        model = alone(("container", runc), ("hypervisor", boot), ("agent", guest))
        yield curve_point(5, startup[rung, "Runtimes-data"], model, fitted=rung == "kata2-cloud-hypervisor")


def _made_of(name: str, *phases: Phase) -> PlatformProfile:
    """A platform that is nothing but its start-up."""
    none = Quantity(value=0.0, low=0.0, high=0.0, kind="published", source="not asked here")
    base = PlatformProfile.from_toml("unikernel")
    return base.model_copy(update={"name": name, "startup": Startup(total_seconds=none, phases=phases)})


def summarise_curves(points: Iterable[CurvePoint]) -> tuple[CurveSummary, ...]:
    """What the points come to: one summary for each line of a curve, in the order of the points.

    The rungs of curve 5 are the points of one line for each unit and publication.
    """
    return tuple(_summary(curve, platform, line) for (curve, platform), line in lines_of(points).items())


def lines_of(points: Iterable[CurvePoint]) -> dict[tuple[int, str], list[CurvePoint]]:
    """The points of each line, by the number of its curve and its name, in the order of the points.

    A line is a platform under several conditions. On the ladder each platform is a point; its lines are what was
    measured, start-up or memory, and the memory around a program.
    """
    lines: dict[tuple[int, str], list[CurvePoint]] = {}
    for point in points:
        name = point.platform
        if point.curve == LADDER:
            name = "start-up" if point.unit == "seconds" else "memory"
            if point.source_name != LADDER_SOURCE:
                name = "memory with a program"
        lines.setdefault((point.curve, name), []).append(point)
    return lines


def predicted_errors(points: Iterable[CurvePoint]) -> list[float]:
    """Relative errors, without their signs, of the points that the model was not fitted to."""
    return [abs(point.relative_error) for point in points if not point.fitted]


def _summary(curve: int, platform: str, line: Sequence[CurvePoint]) -> CurveSummary:
    predicted = [point for point in line if not point.fitted]
    errors = predicted_errors(line)
    return CurveSummary(
        curve=curve,
        platform=platform,
        unit=line[0].unit,
        source=line[0].source_name,
        points=len(predicted),
        median_absolute_relative_error=float(np.median(errors)) if errors else float("nan"),
        worst=max(predicted, key=lambda point: abs(point.relative_error), default=None),
        published_ratio=line[-1].published / line[0].published,
        model_ratio=line[-1].model / line[0].model,
        same_order=all(
            (one.model - other.model) * (one.published - other.published) >= 0
            for number, one in enumerate(line)
            for other in line[:number]
            if abs(one.published - other.published) > 0.06 * min(one.published, other.published)
        ),
    )


POINT_COLUMNS = ("platform", "condition", "published", "simulated", "error")
SUMMARY_COLUMNS = ("curve", "line", "predicted", "median |error|", "max |error|", "simulated ×", "published ×", "order")


def point_rows(points: Iterable[CurvePoint]) -> Iterator[tuple[str, ...]]:
    """Each point as texts for a table with `POINT_COLUMNS`; `fitted` stands for an error that says nothing."""
    for point in points:
        error = "fitted" if point.fitted else f"{point.relative_error:+.1%}"
        published, simulated = (value_text(value, point.unit) for value in (point.published, point.model))
        yield point.platform, condition_text(point), published, simulated, error


def summary_rows(summaries: Iterable[CurveSummary]) -> Iterator[tuple[str, ...]]:
    """Each summary as texts for a table with `SUMMARY_COLUMNS`; × is the last point over the first."""
    for part in summaries:
        median = f"{part.median_absolute_relative_error:.1%}" if part.points else "-"
        largest = "-" if part.worst is None else f"{abs(part.worst.relative_error):.1%}"
        ratios = (f"{ratio:.3g}" for ratio in (part.model_ratio, part.published_ratio))
        order = "same" if part.same_order else "other"
        yield CURVES[part.curve], part.platform, str(part.points), median, largest, *ratios, order


def condition_text(point: CurvePoint) -> str:
    """`guests_running=200` as `guests running 200`."""
    return point.condition.replace("_", " ").replace("=", " ").replace(";", ", ")


def value_text(value: float, unit: str) -> str:
    """A value of a point with its unit, in three digits."""
    if unit == "bytes":
        return f"{_digits(value / GIB)} GiB" if value >= GIB else f"{_digits(value / MIB)} MiB"
    if unit == "seconds":
        return f"{_digits(value)} s" if value >= 1 else f"{_digits(value * 1000)} ms"
    return _digits(value)


def _digits(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


def curves_as_json(points: Sequence[CurvePoint]) -> dict[str, object]:
    """The points, and what they come to, as plain values for `json.dumps`; NaN, which JSON has not, becomes None."""
    summaries = []
    for part in summarise_curves(points):
        plain = asdict(part)
        if not part.points:
            plain["median_absolute_relative_error"] = None
        summaries.append(plain)
    return {"points": [asdict(point) for point in points], "summary": summaries}
