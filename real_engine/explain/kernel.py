"""What the kernel shows of a container's first process, beside what it shows of ours.

Everything is read from /proc and the cgroups' files, and from netlink in both network namespaces; nothing is changed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import struct
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_engine.container.spec import DEFAULT_CAPABILITIES
from real_engine.errors import Conflict, Forbidden
from real_engine.linux import capabilities, netlink, processes
from real_engine.linux.network_namespaces import namespace_of, own_namespace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
"""As /proc/PID/ns names them (namespaces(7))."""
_SECCOMP = {"0": "off", "1": "strict", "2": "filter"}  # proc_pid_status(5)
_TCP_LISTEN, _UDP_UNCONNECTED = "0A", "07"  # include/net/tcp_states.h
_RTM_GETLINK, _NLM_F_DUMP, _IFLA_IFNAME, _IFLA_LINK = 18, 0x300, 3, 5  # linux/rtnetlink.h, netlink.h, if_link.h
_LINK_HEAD = struct.Struct("=BxHiII")  # struct ifinfomsg
_NEIGHBOUR_COMPLETE = 0x2  # ATF_COM of linux/if_arp.h
_MOST_BYTES = 1 << 20
_USAGE_FILES = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "memory.max",
    "memory.current",
    "cpu.shares",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpu.weight",
    "cpu.max",
    "cpuacct.usage",
    "cpuset.cpus",
    "pids.max",
    "pids.current",
    "cgroup.procs",
)
_UNLIMITED = 1 << 62  # v1 shows no limit as the largest number of pages
_CHILD_SECONDS = 10.0
_MASKS = ("/dev/null", "/null")


@dataclass(frozen=True, slots=True)
class Row:
    """A thing, how it is in the container and on the host, and what that means."""

    name: str
    container: str
    host: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Things of a kind. `key` names it."""

    key: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class KernelView:
    """All that was read of process `pid`."""

    pid: int
    sections: tuple[Section, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values: the sections by their keys."""
        return {"pid": self.pid, **{each.key: [asdict(row) for row in each.rows] for each in self.sections}}


def view(pid: int, others: Mapping[str, int] | None = None, daemon: int | None = None) -> KernelView:
    """What the kernel shows of process `pid`. `others` are the first processes of other containers, by name.

    The host's network is that of process `daemon`, where one is named, since there are the other ends of the cables.

    Raises:
        Conflict: it has ended.
        Forbidden: we may not look at it.
    """
    try:
        interfaces, routes = _network_rows(pid, daemon)
        sections = (
            Section("namespaces", tuple(_namespaces(pid, others or {}))),
            Section("ids", tuple(_ids(pid))),
            Section("capabilities", tuple(_capabilities(pid))),
            Section("seccomp", tuple(_seccomp(pid))),
            Section("cgroups", tuple(_cgroups(pid))),
            Section("mounts", tuple(_mounts(pid))),
            Section("limits", tuple(_limits(pid))),
            Section("interfaces", interfaces),
            Section("routes", routes),
            Section("ports", tuple(_ports(pid))),
        )
    except (FileNotFoundError, ProcessLookupError) as error:
        raise Conflict(f"process {pid} is not here: the container has ended, or runs on another machine") from error
    except PermissionError as error:
        raise Forbidden(f"no right to look at process {pid}: be root, or its owner") from error
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise Conflict(f"process {pid} has ended") from error
        raise
    return KernelView(pid, sections)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="backslashreplace") as file:
        return file.read(_MOST_BYTES)


def _namespaces(pid: int, others: Mapping[str, int]) -> Iterable[Row]:
    for name in NAMESPACES:
        try:
            host = os.readlink(f"/proc/self/ns/{name}")
        except FileNotFoundError:  # a kernel without it
            continue
        own = os.readlink(f"/proc/{pid}/ns/{name}")
        sharing = []
        for other, number in others.items():
            with contextlib.suppress(OSError):  # it has just ended
                if own != host and os.readlink(f"/proc/{number}/ns/{name}") == own:
                    sharing.append(other)
        note = "the host's" if own == host else f"shared with {', '.join(sharing)}" if sharing else "its own"
        yield Row(name, _inode(own), _inode(host), note)


def _inode(link: str) -> str:
    return link.partition("[")[2].rstrip("]")


def _status(pid: int | str) -> dict[str, str]:
    lines = _read(f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _ids(pid: int) -> Iterable[Row]:
    ours, theirs = _status("self"), _status(pid)
    for name, label in (("Uid", "uid"), ("Gid", "gid")):
        yield Row(label, _once(theirs[name]), _once(ours[name]))
    yield Row("groups", theirs.get("Groups", ""), ours.get("Groups", ""))
    for name in ("uid_map", "gid_map"):
        theirs_map, ours_map = (_map(_read(f"/proc/{each}/{name}")) for each in (pid, "self"))
        note = "root inside is root outside" if theirs_map.startswith("0→0 ") else "inside→outside × how many"
        yield Row(name, theirs_map, ours_map, note)
    yield Row("pid", theirs.get("NSpid", str(pid)), ours.get("NSpid", ""), "as each PID namespace sees it")


def _once(text: str) -> str:
    """Real, effective, saved and file system id, each of them once."""
    return " ".join(dict.fromkeys(text.split()))


def _map(text: str) -> str:
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return ", ".join(f"{inside}→{outside} × {count}" for inside, outside, count in lines)


def _capabilities(pid: int) -> Iterable[Row]:
    everything = capabilities.all_known()
    default = capabilities.mask(DEFAULT_CAPABILITIES)
    for field, label in (
        ("CapBnd", "bounding"),
        ("CapEff", "effective"),
        ("CapInh", "inheritable"),
        ("CapAmb", "ambient"),
    ):
        theirs = capabilities.status_mask(field, f"/proc/{pid}/status")
        ours = capabilities.status_mask(field)
        note = ""
        if field in ("CapBnd", "CapEff"):
            added, gone = _cap_names(theirs & ~default), _cap_names(default & ~theirs)
            note = "Docker's default set" if not added and not gone else ""
            note += f"more than Docker's default: {added}" if added and theirs != everything else ""
            note += "; " if note and gone else ""
            note += f"Docker's default has {gone} too" if gone else ""
            note = "all that the kernel has" if theirs == everything else note
        shown = _cap_names(theirs) if theirs != everything else f"all {everything.bit_count()}"
        yield Row(label, shown or "none", _host_caps(ours, everything), note)


def _cap_names(bits: int) -> str:
    return " ".join(name.removeprefix("CAP_") for name in capabilities.names(bits))


def _host_caps(bits: int, everything: int) -> str:
    if bits == everything:
        return f"all {everything.bit_count()}"
    missing = _cap_names(everything & ~bits)
    if 0 < (everything & ~bits).bit_count() < bits.bit_count():
        return f"all but {missing}"
    return _cap_names(bits) or "none"


def _seccomp(pid: int) -> Iterable[Row]:
    ours, theirs = _status("self"), _status(pid)
    theirs["Seccomp"], ours["Seccomp"] = (_SECCOMP.get(each.get("Seccomp", ""), "?") for each in (theirs, ours))
    for field, label, note in (
        ("Seccomp", "mode", "which system calls pass"),
        ("Seccomp_filters", "filters", "BPF programs, one upon another"),
        ("NoNewPrivs", "no_new_privs", "1: set-user-ID gives nothing"),
    ):
        yield Row(label, theirs.get(field, "?"), ours.get(field, "?"), note)
    for name, file in (("security label", "attr/current"), ("OOM score adjustment", "oom_score_adj")):
        values = []
        for each in (pid, "self"):
            try:
                values.append(_read(f"/proc/{each}/{file}").strip().strip("\0"))
            except OSError as error:  # EINVAL: no security module
                values.append("none" if error.errno in (errno.EINVAL, errno.ENOENT) else "?")
        yield Row(name, values[0], values[1])


# --- cgroups ---------------------------------------------------------------------------------------------------------


def _mountinfo(pid: int | str) -> Iterable[tuple[str, str, str, str, str, str]]:
    """Root, mount point, options, type, source and super options of each mount (proc_pid_mountinfo(5))."""
    for line in _read(f"/proc/{pid}/mountinfo").splitlines():
        fields = line.split(" ")
        dash = fields.index("-")
        kind, source, super_options = (*fields[dash + 1 : dash + 4], "", "", "")[:3]
        yield _unescape(fields[3]), _unescape(fields[4]), fields[5], kind, _unescape(source), super_options


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _cgroups(pid: int) -> Iterable[Row]:
    places: dict[str, tuple[str, str]] = {}
    for root, point, _, kind, _, options in _mountinfo("self"):
        if kind == "cgroup2":
            places.setdefault("", (point, root))
        elif kind == "cgroup":
            for name in options.split(","):
                places.setdefault(name, (point, root))
    ours = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in _read("/proc/self/cgroup").splitlines()}
    for line in _read(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        label = controllers or "v2"
        yield Row(label, path, ours.get(controllers, ""), "the host's" if path == ours.get(controllers) else "its own")
        place = places.get(controllers.split(",")[0])
        if place is None or path == ours.get(controllers):
            continue
        point, root = place
        group = Path(point) / path.removeprefix(root if root != "/" else "").lstrip("/")
        above = Path(point) / ours.get(controllers, "/").removeprefix(root if root != "/" else "").lstrip("/")
        for name in _USAGE_FILES:
            if (group / name).exists():
                yield Row(f"  {name}", _setting(group / name), _setting(above / name))


def _setting(path: Path) -> str:
    try:
        value = _read(str(path)).strip()
    except OSError:
        return ""
    if path.name == "cgroup.procs":
        return f"processes: {len(value.split())}"
    if value.isdigit() and int(value) >= _UNLIMITED:
        return "no limit"
    if value.lstrip("-").isdigit() and "bytes" in path.name + "memory.max memory.current" * path.name.startswith(
        "memory"
    ):
        return _bytes(int(value))
    if path.name == "cpuacct.usage" and value.isdigit():
        return f"{int(value) / 1e9:.3f} s"
    if value == "-1" or value == "max":
        return "no limit"
    if path.name.endswith("_us") and value.isdigit():
        return f"{value} µs"
    return value.replace("\n", " ")


def _bytes(count: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.1f} {unit}"
    return f"{count} B"


# --- mounts, limits --------------------------------------------------------------------------------------------------


def _mounts(pid: int) -> Iterable[Row]:
    hosts = {point: kind for _, point, _, kind, _, _ in _mountinfo("self")}
    for root, point, options, kind, source, super_options in _mountinfo(pid):
        given = [each for each in options.split(",") if each != "relatime"]
        yield Row(
            point,
            f"{kind} {' '.join(given)}",
            hosts.get(point, ""),
            _mount_note(root, point, kind, source, options, super_options),
        )


def _mount_note(root: str, point: str, kind: str, source: str, options: str, super_options: str) -> str:
    if kind == "overlay":
        found = dict(each.partition("=")[::2] for each in super_options.split(","))
        lowers = [each for each in found.get("lowerdir", "").split(":") if each]
        lowers += [
            value for name, _, value in (e.partition("=") for e in super_options.split(",")) if name == "lowerdir+"
        ]
        count = len(dict.fromkeys(lowers))
        return f"layers below: {count}; what it writes is above, upperdir {found.get('upperdir', '?')}"
    if root in _MASKS or (
        kind == "tmpfs"
        and "ro" in options.split(",")
        and point.startswith(("/proc", "/sys"))
        and point != "/sys/fs/cgroup"
    ):
        return "masked: nothing to be read there"
    if kind == "tmpfs" and point == "/sys/fs/cgroup":
        return "a directory for each hierarchy of cgroups"
    if kind == "proc" and point != "/proc":
        return "the same files, to be read only"
    notes = {
        "proc": "processes of its own PID namespace",
        "sysfs": "devices, and its own network",
        "mqueue": "message queues of its own IPC namespace",
        "devpts": "terminals of its own",
        "tmpfs": "in memory, gone with the container",
    }
    if kind == "tmpfs" and root != "/":
        return f"bind of {root} of the host's {source}"
    if kind in notes:
        return notes[kind]
    if kind.startswith("cgroup"):
        return "its own cgroup is the root it sees"
    return f"bind of {root} of the host's {source}"


def _limits(pid: int) -> Iterable[Row]:
    ours, theirs = (_limit_lines(each) for each in ("self", pid))
    for name, value in theirs.items():
        note = "" if value == ours.get(name) else "differs"
        yield Row(name.removeprefix("Max "), value, ours.get(name, ""), note)


def _limit_lines(pid: int | str) -> dict[str, str]:
    found = {}
    for line in _read(f"/proc/{pid}/limits").splitlines()[1:]:
        parts = re.split(r"\s{2,}", line.strip())
        if len(parts) >= 3:
            soft, hard = (_amount(each, parts[3] if len(parts) > 3 else "") for each in parts[1:3])
            found[parts[0]] = f"{soft} / {hard}" if soft != hard else soft
    return found


def _amount(value: str, unit: str) -> str:
    """A limit in the unit that suits it; what is counted (files, processes, signals) has none."""
    if not value.isdigit():
        return value
    if unit == "bytes":
        return _bytes(int(value))
    return f"{value} {'µs' if unit == 'us' else 's'}" if unit in ("us", "seconds") else value


# --- network ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Network:
    """A network namespace as netlink shows it."""

    links: dict[int, netlink.Link]
    peers: dict[int, int]
    addresses: dict[int, list[str]]
    routes: list[netlink.Route]


def _network(namespace: int) -> _Network:
    with netlink.RouteSocket(namespace) as route:
        links = {link.index: link for link in route.links()}
        addresses: dict[int, list[str]] = {}
        for index, address in route.addresses():
            addresses.setdefault(index, []).append(str(address))
        peers = {}
        for body in route.ask((_RTM_GETLINK, _NLM_F_DUMP, _LINK_HEAD.pack(0, 0, 0, 0, 0))):
            index = _LINK_HEAD.unpack_from(body)[2]
            for kind, value in netlink.attributes(body[_LINK_HEAD.size :]):
                if kind == _IFLA_LINK:
                    peers[index] = int.from_bytes(value[:4], "little" if struct.pack("=H", 1)[0] else "big")
        return _Network(links, peers, addresses, route.routes())


def _both_networks(pid: int, daemon: int | None) -> tuple[_Network, _Network | None]:
    """The container's, and the host's if that is another."""
    at_home = os.readlink(f"/proc/{daemon or 'self'}/ns/net")
    same = os.readlink(f"/proc/{pid}/ns/net") == at_home
    found = []
    for namespace in (namespace_of(pid), own_namespace() if daemon is None else namespace_of(daemon)):
        try:
            found.append(_network(namespace))
        finally:
            os.close(namespace)
    return found[0], None if same else found[1]


def _network_rows(pid: int, daemon: int | None) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Interfaces and routes. An ordinary user may enter his container's network from his own user namespace only."""
    try:
        return tuple(_interfaces(pid, daemon)), tuple(_routes(pid, daemon))
    except PermissionError:
        command = [sys.executable, "-m", "real_engine.explain.kernel", str(pid), str(daemon or "self")]
        child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_CHILD_SECONDS)
        if child.returncode:
            raise
        interfaces, routes = (tuple(Row(**row) for row in rows) for rows in json.loads(child.stdout))
        return interfaces, routes


def main(arguments: Sequence[str]) -> int:
    """Enter the user namespace of a process, and write as JSON what its network shows beside that of another."""
    pid, daemon = int(arguments[0]), None if arguments[1] == "self" else int(arguments[1])
    # Its own network would be closed to it afterwards, so it is at home in that of the daemon.
    joined = [(pid, "user", processes.CLONE_NEWUSER), (daemon or pid, "net", processes.CLONE_NEWNET)]
    for process, name, kind in joined:
        namespace = os.open(f"/proc/{process}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        processes.setns(namespace, kind)
        os.close(namespace)
    rows = [[asdict(row) for row in found] for found in (_interfaces(pid, daemon), _routes(pid, daemon))]
    print(json.dumps(rows))
    return 0


def _interfaces(pid: int, daemon: int | None) -> Iterable[Row]:
    own, host = _both_networks(pid, daemon)
    for index, link in own.links.items():
        text = " ".join([*own.addresses.get(index, ["no address"]), link.mac, f"mtu {link.mtu}"])
        text += "" if link.up else " down"
        if host is None:
            yield Row(link.name, text, text, "the host's network")
            continue
        peer = host.links.get(own.peers.get(index, 0)) if link.kind == "veth" else None
        if peer is None or peer.kind != "veth" or host.peers.get(peer.index) != index:
            yield Row(
                link.name, text, "", f"{link.kind or 'loopback'}, of its own" if link.kind != "veth" else "a cable"
            )
            continue
        bridge = host.links.get(peer.master)
        shown = f"{peer.name} (index {peer.index})"
        if bridge is not None:
            shown += f" on {bridge.name} {' '.join(host.addresses.get(bridge.index, []))}"
        yield Row(link.name, text, shown, "a cable, and where its other end is plugged in")


def _routes(pid: int, daemon: int | None) -> Iterable[Row]:
    own, host = _both_networks(pid, daemon)
    hosts = _route_texts(host) if host is not None else {}
    for name, text in _route_texts(own).items():
        yield Row(name, text, hosts.get(name, ""))
    for line in _read(f"/proc/{pid}/net/arp").splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 6 and int(fields[2], 16) & _NEIGHBOUR_COMPLETE:
            yield Row(f"neighbour {fields[0]}", f"{fields[3]} dev {fields[5]}")


def _route_texts(network: _Network) -> dict[str, str]:
    found: dict[str, str] = {}
    for route in network.routes:
        name = "default" if route.destination.prefixlen == 0 else str(route.destination)
        name += " (IPv6)" if route.destination.version == 6 and name == "default" else ""
        link = network.links.get(route.index)
        by = f"via {route.gateway} " if route.gateway is not None else ""
        text = f"{by}dev {link.name if link else route.index}"
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def _ports(pid: int) -> Iterable[Row]:
    same = os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    for protocol, state in (("tcp", _TCP_LISTEN), ("tcp6", _TCP_LISTEN), ("udp", _UDP_UNCONNECTED), ("udp6", "07")):
        listening = _listening(pid, protocol, state)
        if listening:
            yield Row(
                protocol, " ".join(listening), "the same" if same else "", "open here, not on the host" * (not same)
            )


def _listening(pid: int, protocol: str, state: str) -> list[str]:
    try:
        lines = _read(f"/proc/{pid}/net/{protocol}").splitlines()[1:]
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        fields = line.split()
        if fields[3] == state:
            address, _, port = fields[1].partition(":")
            words = [int(address[start : start + 8], 16) for start in range(0, len(address), 8)]
            packed = b"".join(struct.pack("=I", word) for word in words)
            family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
            shown = socket.inet_ntop(family, packed)
            found.append(f"{f'[{shown}]' if ':' in shown else shown}:{int(port, 16)}")
    return sorted(set(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
