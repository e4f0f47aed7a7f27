"""The way from the engine's network namespace to the world, through a program that speaks for it with plain sockets.

An ordinary user can't put an interface into the machine's network. pasta(1) and slirp4netns(1) hold the other end of a
tap device in the namespace and translate: each connection of a container becomes one of theirs. Both are told not to
let the inside reach the machine's loopback, and to forward no port by themselves: ports are the daemon's business.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from real_engine.errors import EngineError
from real_engine.linux.processes import PR_SET_PDEATHSIG, prctl
from real_engine.networks.name_files import host_resolv_conf, read_resolv_conf

INTERFACE = "tap0"
CHOICES = ("auto", "pasta", "slirp4netns", "none")
_PASTA_RESOLVER = "169.254.1.1"  # any address that isn't used: pasta itself answers for it, with the machine's resolver
_SLIRP_RESOLVER = "10.0.2.3"  # slirp4netns(1): of its usual network
_SLIRP_MTU = 65520  # slirp4netns(1), --mtu: the largest are the fastest
_READY_SECONDS = 10.0
_NO_ROUTE = "00000000"
_LARGEST_LOG = 1 << 16  # bytes


@dataclass(frozen=True, slots=True)
class _Program:
    name: str
    package: str
    words: Callable[[int], Sequence[str]]


def _pasta(pid: int) -> Sequence[str]:
    words = ["--foreground", "--quiet", "--config-net", "--ns-ifname", INTERFACE, "--no-map-gw"]
    words += ["--dns-forward", _PASTA_RESOLVER]
    for way in ("--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"):
        words += [way, "none"]
    return [*words, str(pid)]


def _slirp(pid: int) -> Sequence[str]:
    options = ("--configure", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp")
    return [*options, f"--mtu={_SLIRP_MTU}", str(pid), INTERFACE]


_PROGRAMS = (_Program("pasta", "passt", _pasta), _Program("slirp4netns", "slirp4netns", _slirp))


class Uplink:
    """The program that connects a network namespace. Without one, `name` is `none` and `reason` says why."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes] | None" = None, reason: str = "") -> None:
        self.name = name
        self.reason = reason
        self.process = process

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            _end(self.process)


def connect(pid: int, run: Path, choice: str = "auto") -> Uplink:
    """Connect the network namespace of process `pid`: by pasta, or slirp4netns, or the one that is named.

    Raises:
        EngineError: the one that was named is not installed, or can't do it.
    """
    if choice == "none":
        return Uplink("none", reason="asked for")
    reasons = []
    for program in _PROGRAMS:
        if choice not in ("auto", program.name):
            continue
        path = _which(program.name)
        if path is None:
            reasons.append(f"{program.name}: not installed (package {program.package})")
            continue
        try:
            return Uplink(program.name, _start(path, program.words(pid), pid, run))
        except EngineError as error:
            reasons.append(f"{program.name}: {error}")
    reason = "; ".join(reasons)
    if choice != "auto":
        raise EngineError(f"no uplink by {reason}")
    return Uplink("none", reason=reason)


def resolv_conf(name: str) -> str:
    """What resolv.conf says inside, with the uplink of that name: servers that can be reached through it."""
    host = read_resolv_conf(host_resolv_conf())
    if name == "slirp4netns":
        servers: tuple[str, ...] = (_SLIRP_RESOLVER,)
    else:
        servers = tuple(server for server in host.servers if not server.startswith("127.") and server != "::1")
        if name == "pasta" and not servers:
            servers = (_PASTA_RESOLVER,)
    lines = [f"nameserver {server}" for server in servers]
    lines += [f"search {' '.join(host.search)}"] if host.search else []
    lines += [f"options {' '.join(host.options)}"] if host.options else []
    return "\n".join(lines) + "\n"


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _start(path: str, words: Sequence[str], pid: int, run: Path) -> "subprocess.Popen[bytes]":
    """The program, once there is a default route in the namespace.

    Raises:
        EngineError: it ended before, or there is none after ten seconds.
    """
    log = run / "uplink.log"
    with open(log, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as output:
        process = subprocess.Popen(
            [path, *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # the keeper has one thread
        )
    deadline = time.monotonic() + _READY_SECONDS
    try:
        while not _has_route(pid):
            if process.poll() is not None:
                raise EngineError(f"it ended with status {process.returncode}{_last_line(log)}")
            if time.monotonic() > deadline:
                raise EngineError(f"it made no route in {_READY_SECONDS:g} s{_last_line(log)}")
            time.sleep(0.005)
    except BaseException:
        _end(process)
        raise
    return process


def _has_route(pid: int) -> bool:
    """Whether the namespace of process `pid` has a default route (proc(5): /proc/net/route)."""
    lines = [line.split() for line in Path(f"/proc/{pid}/net/route").read_text().splitlines()[1:]]
    return any(fields[1] == fields[7] == _NO_ROUTE for fields in lines if len(fields) > 7) or _has_route6(pid)


def _has_route6(pid: int) -> bool:
    try:
        lines = [line.split() for line in Path(f"/proc/{pid}/net/ipv6_route").read_text().splitlines()]
    except OSError:  # a kernel without IPv6
        return False
    return any(fields[0] == "0" * 32 and fields[1] == "00" and fields[9] == INTERFACE for fields in lines)


def _last_line(log: Path) -> str:
    lines = log.read_bytes()[-_LARGEST_LOG:].decode("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip() and "to syslog" not in line]
    return f": {said[-1]}" if said else ""


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
