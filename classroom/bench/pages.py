"""The report for people: a page in Markdown, and tables on the terminal."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from classroom.bench.figures import HOUR_TARGET_SECONDS, RATIOS, SPEED_TARGETS

if TYPE_CHECKING:
    from rich.console import Console

Found = Mapping[str, Any]
"""What `classroom.bench.figures.report` gives."""

ENGINE_LABELS = {
    ("full_scenario", "numba"): "onggi, compiled by Numba",
    ("full_scenario", "python"): "onggi, plain Python",
    ("full_scenario", "process_per_request"): "onggi, a SimPy process per request",
    ("mm10", "onggi"): "onggi, compiled by Numba",
    ("mm10", "ciw"): "Ciw",
    ("mm10", "simpy"): "SimPy, a process per customer",
    ("ten_times_the_requests", "numba"): "onggi, ten times the requests",
    ("ten_times_as_long", "numba"): "onggi, ten times as long",
    ("fleet", "small"): "onggi, {small_fleet} instances",
    ("fleet", "large"): "onggi, {large_fleet:,} instances",
    ("replications", "one_core"): "onggi, {replications} replications on one core",
    ("replications", "two_cores"): "onggi, {replications} replications on two cores",
    ("hour", "numba"): "onggi, an hour of 10,000 instances",
}

ROW_TITLES = {
    "full_scenario": "The full scenario",
    "mm10": "M/M/10",
    "ten_times_the_requests": "Ten times the requests",
    "ten_times_as_long": "Ten times as long",
    "fleet": "More instances",
    "replications": "More cores",
    "hour": "A large room for an hour",
}

ROW_WORDS = {
    "full_scenario": "`data/scenarios/full.toml`: load in steps, an autoscaler every 15 seconds, boots of 40 seconds, "
    "least connections over about 27 instances, {requests:,} requests.",
    "mm10": "Ten workers at a load of 0.8, first come, first served, {requests:,} requests: what any queueing library "
    "can do. Ciw keeps a record of each customer; SimPy is written by hand to keep a sum and nothing else.",
    "ten_times_the_requests": "The full scenario again, with {ten_times:,} requests in the same time, each a tenth of "
    "the work: does memory grow with the number of requests?",
    "ten_times_as_long": "The full scenario again, with its load repeated until {ten_times:,} requests have come. Ten "
    "times the decisions are kept too, with their reasons, and ten times the instances with their histories.",
    "fleet": "A fixed fleet of one-worker instances at a load of 0.7 behind least connections, {fleet_requests:,} "
    "requests. Placing and starting the instances is part of the time.",
    "replications": "{replications} replications of the full scenario in one call, in one process and in two.",
    "hour": "1,000 machines, 10,000 instances, 100,000 requests a second for an hour. Run once.",
}

RATIO_LABELS = {
    "numba_to_process_per_request": "full scenario: Numba to a process per request, speed",
    "python_to_process_per_request": "full scenario: plain Python to a process per request, speed",
    "onggi_to_ciw": "M/M/10: onggi to Ciw, speed",
    "onggi_to_simpy": "M/M/10: onggi to SimPy, speed",
    "peak_of_10x_requests": "ten times the requests, peak memory",
    "peak_of_10x_the_time": "ten times as long, peak memory",
    "cost_of_large_fleet": "the large fleet to the small, time for a request",
    "two_cores_to_one": "replications: two cores to one, speed",
}

SIGNS = {">=": "≥", "<=": "≤"}


def to_markdown(found: Found) -> str:
    """The page, generated from the report and nothing else."""
    return "\n".join(_page(found)) + "\n"


def _page(found: Found) -> Iterator[str]:
    size = found["size"]
    yield "# How fast the simulator is"
    yield ""
    yield "Written by `onggi bench simulator --markdown FILE`. Don't edit it: run the command."
    yield ""
    yield _machine(found)
    yield ""
    for warning in found["warnings"]:
        yield f"> **Beware**: {warning}."
        yield ""
    for row, title in ROW_TITLES.items():
        if row not in found:
            continue
        yield f"## {title}"
        yield ""
        yield ROW_WORDS[row].format(**size)
        yield ""
        yield "| engine | requests/s | spread | requests/CPU s | peak memory | wanted |"
        yield "|---|---:|---:|---:|---:|---:|"
        for engine, column in found[row].items():
            yield f"| {' | '.join(_cells(found, row, engine, column))} |"
        yield ""
    yield "## Ratios"
    yield ""
    yield "| of medians | ratio | wanted |"
    yield "|---|---:|---:|"
    for name, value in found["ratios"].items():
        yield f"| {RATIO_LABELS[name]} | {value:.3g} | {_wanted(found, name, value)} |"
    yield ""
    yield "## Is it the right answer?"
    yield ""
    yield from _answers(found)
    yield ""
    yield "## How it is measured"
    yield ""
    method = found["method"]
    yield f"- Runs: {found['runs']} of each, {method['runs']}. Spread is (fastest - slowest) / median."
    yield f"- Time: {method['time']}."
    yield f"- Memory: {method['memory']}."
    yield "- Every sample is in the JSON that `--json FILE` writes."


def _machine(found: Found) -> str:
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"Measured {machine['recorded_at']} on {machine['cpu']}, {machine['cores']} cores, {machine['system']}, "
        f"{machine['python']}; {versions}."
    )


def _cells(found: Found, row: str, engine: str, column: Found) -> list[str]:
    """One engine's cells in words."""
    by_cpu, peak = column["requests_per_cpu_second"], column["peak_bytes"]
    wanted = ""
    if (target := SPEED_TARGETS.get((row, engine))) is not None:
        wanted = f"≥ {target:,.0f}/s{_verdict(found, column['requests_per_second'] >= target)}"
    if row == "hour":
        seconds = column["wall_seconds"]
        wanted = f"≤ {HOUR_TARGET_SECONDS:.0f} s; took {seconds:.0f} s{_verdict(found, seconds <= HOUR_TARGET_SECONDS)}"
    return [
        ENGINE_LABELS[row, engine].format(**found["size"]),
        f"{column['requests_per_second']:,.0f}",
        f"{column['spread']:.0%}" if len(column["samples"]) > 1 else "one run",
        "" if by_cpu is None else f"{by_cpu:,.0f}",
        "" if peak is None else f"{peak / 2**20:.1f} MiB",
        wanted,
    ]


def _wanted(found: Found, name: str, value: float) -> str:
    target = RATIOS[name].target
    if target is None:
        return ""
    sign, bound = target
    met = value >= bound if sign == ">=" else value <= bound
    return f"{SIGNS[sign]} {bound:g}{_verdict(found, met)}"


def _verdict(found: Found, met: bool) -> str:
    """Too few requests are no ground to judge on."""
    if found["quick"]:
        return ""
    return ", met" if met else ", **missed**"


def _answers(found: Found) -> Iterator[str]:
    verified = found["verified"]
    if "mm10_mean_wait" in verified:
        waits = dict(verified["mm10_mean_wait"])
        yield f"M/M/10 waits {waits.pop('theory'):.6f} seconds on average (Erlang C). The engines found:"
        yield ""
        yield "| engine | mean wait | 99 % interval over the runs | holds the theory |"
        yield "|---|---:|---:|---|"
        for engine, held in waits.items():
            interval = "one run" if held["low"] is None else f"{held['low']:.4f} … {held['high']:.4f}"
            holds = {True: "yes", False: "**no**", None: ""}[held["holds_theory"]]
            yield f"| {ENGINE_LABELS['mm10', engine]} | {held['mean_wait_seconds']:.4f} | {interval} | {holds} |"
        yield ""
    if "full_scenario_same_figures" in verified:
        same = "the same figures" if verified["full_scenario_same_figures"] else "**different figures**"
        yield f"In the full scenario all data planes gave {same}, seed by seed."


def show(console: "Console", found: Found) -> None:
    """Print the report as tables."""
    from rich.table import Table
    from rich.text import Text

    console.print(Text(_machine(found), style="dim"))
    for row, title in ROW_TITLES.items():
        if row not in found:
            continue
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column("engine")
        for name in ("requests/s", "spread", "requests/CPU s", "peak memory", "wanted"):
            table.add_column(name, justify="right")
        for engine, column in found[row].items():
            table.add_row(*(cell.replace("**", "") for cell in _cells(found, row, engine, column)))
        console.print(table)
    table = Table(title="Ratios", title_justify="left", box=None, pad_edge=False)
    table.add_column("of medians")
    table.add_column("ratio", justify="right")
    table.add_column("wanted", justify="right")
    for name, value in found["ratios"].items():
        table.add_row(RATIO_LABELS[name], f"{value:.3g}", _wanted(found, name, value).replace("**", ""))
    console.print(table)
    for engine, held in found["verified"].get("mm10_mean_wait", {}).items():
        if engine != "theory" and held["holds_theory"] is False:
            console.print(Text(f"The mean wait of {engine} in M/M/10 is not Erlang's: its speed counts for nothing."))
    if found["verified"].get("full_scenario_same_figures") is False:
        console.print(Text("The data planes gave different figures in the full scenario: their speeds do not compare."))
    for warning in found["warnings"]:
        console.print(Text(f"! {warning}", style="yellow"))
