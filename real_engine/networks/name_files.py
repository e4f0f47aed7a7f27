"""The files from which a container's programs learn names: resolv.conf(5) and hosts(5)."""

import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path

from real_engine.networks.spec import DnsOptions, Endpoint

HOST_FILE = Path("/etc/resolv.conf")
# systemd-resolved's own list of servers, where resolv.conf names only its stub on the loopback (moby, resolvconf.Path).
_BEHIND_STUB = Path("/run/systemd/resolve/resolv.conf")
_STUB = "127.0.0.53"
_PUBLIC_SERVERS = ("8.8.8.8", "8.8.4.4")  # moby, resolvconf: when the host's are of no use to a container
_PUBLIC_SERVERS6 = ("2001:4860:4860::8888", "2001:4860:4860::8844")
_MOST_BYTES = 1 << 16
EMBEDDED_SERVER = "127.0.0.11"

# moby, libnetwork/etchosts: what every container's file begins with.
_HOSTS = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::0", "ip6-localnet"),
    ("ff00::0", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


def read_resolv_conf(text: str) -> DnsOptions:
    """What a resolv.conf says: all servers, the last search list, all options."""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            try:
                servers.append(str(ipaddress.ip_address(words[1].partition("%")[0])))
            except ValueError:
                continue  # as the C library does
        elif words[0] in ("search", "domain"):
            search = words[1:]
        elif words[0] == "options":
            options += words[1:]
    return DnsOptions(tuple(servers), tuple(search), tuple(options))


def host_resolv_conf(path: Path = HOST_FILE) -> str:
    """The host's resolv.conf; empty if it has none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(_MOST_BYTES)
        if path == HOST_FILE and read_resolv_conf(text).servers == (_STUB,):
            return host_resolv_conf(_BEHIND_STUB) or text
    except OSError:
        return ""
    return text


def dns_config(
    options: DnsOptions, *, embedded: bool, ipv6: bool = False, host_network: bool = False, host: str | None = None
) -> bytes:
    """A container's resolv.conf.

    `embedded`: it is on a network of its users' own, so that its server is the engine's, which asks the others. Else
    it has the host's, without those on the host's loopback, which it can't reach, or those that it asked for. `host` is
    the text of the host's file when it isn't the one at its usual place.
    """
    text = host_resolv_conf() if host is None else host
    if host_network and not (options.servers or options.search or options.options):
        return text.encode()
    known = read_resolv_conf(text)
    search = () if options.search == (".",) else options.search or known.search
    settings = options.options or known.options
    if embedded:
        servers: Sequence[str] = (EMBEDDED_SERVER,)
        if not any(each.startswith("ndots:") for each in settings):
            settings = (*settings, "ndots:0")  # a container's name has no dot, and is a name all the same
    elif options.servers or host_network:
        servers = options.servers or known.servers
    else:
        usable = (each for each in known.servers if not ipaddress.ip_address(each).is_loopback)
        servers = [each for each in usable if ipv6 or ":" not in each]
        servers = servers or [*_PUBLIC_SERVERS, *(_PUBLIC_SERVERS6 if ipv6 else ())]
    lines = [f"search {' '.join(search)}"] if search else []
    lines += [f"nameserver {server}" for server in servers]
    if settings:
        lines.append(f"options {' '.join(settings)}")
    return ("\n".join(lines) + "\n").encode()


def hosts_file(
    hostname: str,
    endpoints: Iterable[Endpoint],
    extra_hosts: Iterable[str] = (),
    *,
    domain: str = "",
    links: Iterable[tuple[str, Sequence[str]]] = (),
    host_gateway: str = "",
) -> bytes:
    """A container's hosts file: the usual lines, what was added, its links, and its own name at each address.

    `extra_hosts` are `name:address`, `host-gateway` standing for `host_gateway`; `links` an address each with names.
    """
    lines = [f"{address}\t{names}" for address, names in _HOSTS]
    for extra in extra_hosts:
        name, _, address = extra.partition(":")
        lines.append(f"{host_gateway if address == 'host-gateway' and host_gateway else address}\t{name}")
    lines += [f"{address}\t{' '.join(names)}" for address, names in links]
    full = f"{hostname}.{domain}" if domain else hostname  # a host name may have its domain in it already
    names = f"{full} {full.partition('.')[0]}" if "." in full else full
    for endpoint in endpoints:
        lines += [f"{address}\t{names}" for address in (endpoint.ipv4, endpoint.ipv6) if address and names]
    return ("\n".join(lines) + "\n").encode()
