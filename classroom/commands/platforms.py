"""List the platforms that can be simulated, or show one of them, with where each of its figures comes from."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.text import Text

    from simulator.datacenter.platforms import Phase, PlatformProfile, Quantity

_NARROW = 195
"""Columns of a terminal below which the list stands under each other, for nothing to be cut."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a platform's name, or the path of a profile of your own"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the profiles as JSON to FILE, or to standard output with -"
    )


def run(arguments: Namespace) -> int:
    """Show all platforms, or all of one."""
    from pathlib import Path

    from simulator.datacenter.platforms import PlatformProfile, shipped_profiles
    from simulator.files import write_text

    if arguments.name is None:
        profiles = shipped_profiles()
    else:
        profile = PlatformProfile.from_toml(arguments.name)
        profiles = {profile.name: profile}
    if arguments.json:
        text = _as_json(profiles)
        if arguments.json == "-":
            print(text, end="")
            return 0
        write_text(Path(arguments.json), text)
    from rich.console import Console

    console = Console(highlight=False)
    if arguments.name is None:
        _list(console, list(profiles.values()))
    else:
        _one(console, profile)
    return 0


def _as_json(profiles: "dict[str, PlatformProfile]") -> str:
    import json

    platforms = {name: profile.model_dump(exclude_none=True) for name, profile in profiles.items()}
    return json.dumps({"platforms": platforms}, ensure_ascii=False, indent=2) + "\n"


def _list(console: "Console", profiles: "list[PlatformProfile]") -> None:
    from rich.table import Table
    from rich.text import Text

    if console.width < _NARROW:
        for profile in profiles:
            console.print(Text.assemble((profile.name, "bold"), f"  {profile.label_en}"))
            for what, figure in _figures(profile, " "):
                console.print(Text.assemble(f"  {what}: ", figure))
    else:
        table = Table(box=None, padding=(0, 2, 1, 0))
        table.add_column("platform", style="bold")
        for what, _ in _figures(profiles[0], "\n"):
            table.add_column(what)
        for profile in profiles:
            table.add_row(f"{profile.name}\n{profile.label_en}", *(figure for _, figure in _figures(profile, "\n")))
        console.print(table)
    console.print(
        "In brackets: a 95 % interval of what was measured, the span of what was published. `onggi platforms NAME` "
        "shows one with its sources. Your own: a TOML file with the keys of one in data/profiles, which can be named "
        "by its path wherever a platform is asked for.",
        markup=False,
    )


def _figures(profile: "PlatformProfile", apart: str) -> "Iterator[tuple[str, Text]]":
    """What the list tells of a platform; `apart` stands between a value, its interval and its kind."""
    from rich.text import Text

    yield "start-up", _figure(profile.startup.total_seconds, _seconds, apart)
    snapshot = profile.snapshot
    yield "from a snapshot", Text("none") if snapshot is None else _figure(snapshot.total_seconds, _seconds, apart)
    memory = profile.memory
    each = _figure(memory.private_bytes, _bytes, apart)
    if memory.kernel_bytes.value or memory.shared_bytes.value:
        more = f"+ {_bytes(memory.kernel_bytes.value)} kernel{apart}+ {_bytes(memory.shared_bytes.value)} shared"
        each = Text.assemble(each, f"{apart}{more}")
    yield "memory of one", each
    yield "guest", Text(apart.join(_guest(profile)))
    overhead = profile.overhead
    yield "CPU of a request", _figure(overhead.cpu_factor, _times, apart)
    yield "its network path", _figure(overhead.network_seconds, _seconds, apart)
    disk = overhead.io_operation_seconds
    yield "a disk operation", Text("not known") if disk is None else _figure(disk, _seconds, apart)
    yield "sources", Text(("," + apart).join(_sources(profile)))


def _guest(profile: "PlatformProfile") -> "Iterator[str]":
    """Whose kernel its programs run on, and the parts of a guest's memory."""
    if profile.shares_host_kernel:
        yield "none: the host's kernel"
        return
    guest = profile.guest
    if guest is None:
        yield "none; a kernel of its own"
        return
    yield f"VMM {_bytes(guest.vmm_mib * 2**20)},"
    yield f"kernel {_bytes(guest.kernel_mib * 2**20)}"
    if guest.page_cache_mib or guest.free_mib:
        yield f"+ {_bytes((guest.page_cache_mib + guest.free_mib) * 2**20)} cache, free"
    if guest.ram_mib is not None:
        yield f"of {_bytes(guest.ram_mib * 2**20)} promised"


def _sources(profile: "PlatformProfile") -> "list[str]":
    """The publications that a profile names, and the hosts whose measurements it was fitted to."""
    import re

    from simulator.evidence.published import sources

    memory, overhead = profile.memory, profile.overhead
    figures: list[Quantity | Phase] = [profile.startup.total_seconds, *profile.startup.phases]
    figures += [memory.private_bytes, memory.shared_bytes, memory.kernel_bytes]
    figures += [overhead.cpu_factor, overhead.network_seconds]
    if overhead.io_operation_seconds is not None:
        figures.append(overhead.io_operation_seconds)
    if profile.snapshot is not None:
        figures += [profile.snapshot.total_seconds, *profile.snapshot.phases]
    hosts = {each.source.partition("/")[0]: None for each in figures if each.kind == "measured"}
    texts = [each.source for each in figures] + ([] if profile.guest is None else [profile.guest.source])
    # A publication is named before a colon, a bracket or a place in it; `Linux` may also be what a guest runs.
    cited = {name: re.compile(rf"{re.escape(name)}(?=[:;,.)']| §| Fig|$)") for name in sources()}
    return [*hosts, *(name for name, named in cited.items() if any(named.search(text) for text in texts))]


def _figure(quantity: "Quantity", text: "Callable[[float], str]", apart: str = " ") -> "Text":
    """A value with its interval and its kind, which the word says and the colour only repeats."""
    from rich.text import Text

    from classroom.table import KIND_STYLES

    interval = "" if quantity.low == quantity.high else f"[{text(quantity.low)} … {text(quantity.high)}]{apart}"
    kind = (quantity.kind, KIND_STYLES[quantity.kind])
    return Text.assemble((text(quantity.value), "bold"), f"{apart}{interval}", kind)


def _one(console: "Console", profile: "PlatformProfile") -> None:
    from rich.padding import Padding
    from rich.text import Text

    from classroom.table import KIND_STYLES

    def say(text: "Text | str", indent: int = 0) -> None:
        console.print(Padding(text, (0, 0, 0, indent)))

    say(Text.assemble((profile.name, "bold"), f"  {profile.label_en} · {profile.label_ko}"))
    say(Text(profile.about))
    for title, startup in (("Start-up", profile.startup), ("From a snapshot", profile.snapshot)):
        if startup is not None:
            say("")
            say(Text.assemble((f"{title}: ", "bold"), _figure(startup.total_seconds, _seconds)))
            say(Text(startup.total_seconds.source, style="dim"), 2)
            for phase in startup.phases:
                say(Text(f"{phase.name}: {_consumption(phase)} ({phase.kind})"), 2)
                say(Text(phase.source, style="dim"), 4)
    groups: list[tuple[str, Quantity | None, Callable[[float], str]]] = [
        ("Private memory of each", profile.memory.private_bytes, _bytes),
        ("Memory shared by all", profile.memory.shared_bytes, _bytes),
        ("Kernel memory of each", profile.memory.kernel_bytes, _bytes),
        ("CPU of a request", profile.overhead.cpu_factor, _times),
        ("Its network path", profile.overhead.network_seconds, _seconds),
        ("A disk operation", profile.overhead.io_operation_seconds, _seconds),
    ]
    say("")
    for what, quantity, text in groups:
        if quantity is not None:
            say(Text.assemble((f"{what}: ", "bold"), _figure(quantity, text)))
            say(Text(quantity.source, style="dim"), 2)
    if profile.guest is not None:
        parts = [
            (profile.guest.vmm_mib, "for the VMM"),
            (profile.guest.kernel_mib, "for the guest's kernel"),
            (profile.guest.page_cache_mib, "of page cache on top"),
            (profile.guest.free_mib, "of free pages on top"),
            (profile.guest.ram_mib, "promised to the guest"),
        ]
        told = ", ".join(f"{_bytes(mib * 2**20)} {what}" for mib, what in parts if mib)
        kind = (profile.guest.kind, KIND_STYLES[profile.guest.kind])
        say(Text.assemble(("Of the private memory: ", "bold"), f"{told or 'nothing told apart'} ", kind))
        say(Text(profile.guest.source, style="dim"), 2)
    whose = "of the machine: its crash ends all on it" if profile.shares_host_kernel else "its own: its crash ends one"
    say(Text.assemble(("Kernel: ", "bold"), whose))
    ports = "" if profile.bridge_ports is None else f", bridge ports: {profile.bridge_ports} on a machine"
    say(Text(f"Process identifiers of each: {profile.pids_per_instance}{ports}"))


def _consumption(phase: "Phase") -> str:
    """What a phase consumes, in words."""
    parts = []
    if phase.read_mib:
        parts.append(f"reads {phase.read_mib:g} MiB")
    if phase.cpu_seconds:
        parts.append(f"{_seconds(phase.cpu_seconds)} of CPU")
    if phase.parallel_cpu_seconds:
        parts.append(f"{_seconds(phase.parallel_cpu_seconds)} of a second CPU")
    if phase.cpu_seconds_per_running:
        parts.append(f"+ {_seconds(phase.cpu_seconds_per_running)} for each that runs")
    if phase.cpu_seconds_per_running_squared:
        parts.append(f"+ {_seconds(phase.cpu_seconds_per_running_squared)} for each pair that runs")
    if phase.lock:
        parts.append(f"under the lock {phase.lock}")
    if phase.fixed_seconds:
        parts.append(f"{_seconds(phase.fixed_seconds)} of delay")
    return ", ".join(parts) or "nothing"


def _seconds(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns" if seconds else "0 s"


def _bytes(size: float) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} B"


def _times(factor: float) -> str:
    return f"× {factor:.3g}"
