"""From what is asked of a network to a network: every option checked, and its addresses chosen."""

import ipaddress
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from real_engine.errors import EngineError, Forbidden, NotFound
from real_engine.linux.netlink import MACVLAN_MODES, Address, Subnet
from real_engine.networks.ipam import (
    PoolAllocator,
    check_claimable,
    choose_subnet,
    choose_subnet6,
    contains,
    first_address,
    overlaps,
    parse_address,
)
from real_engine.networks.spec import (
    BRIDGE_NAME,
    DEFAULT_BRIDGE,
    ENABLE_ICC,
    ENABLE_MASQUERADE,
    HOST_BINDING,
    MACVLAN_MODE,
    MTU,
    PARENT,
    PREDEFINED,
    AddressPool,
    Network,
    NetworkSpec,
)

MOST_NAME_BYTES = 15
"""Bytes of an interface's name (IFNAMSIZ without its zero)."""

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm'
    " and try again."
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a new network must keep clear of: `networks` of ours, and the `subnets` that this host can reach already.

    `pools` are the blocks that subnets are cut from, each with the prefix length of what is cut.
    """

    networks: Sequence[Network]
    subnets: Callable[[], Iterable[Subnet]]
    pools: Sequence[tuple[str, int]] = ()
    mtu: int = 0


def new_network(spec: NetworkSpec, around: Surroundings, identifier: str = "") -> Network:
    """The network that `spec` asks for. Nothing is made in the kernel yet.

    Raises:
        EngineError: of a kind and with the message that Docker has for what is wrong.
    """
    if not spec.name:
        raise EngineError("invalid name: ")
    if not identifier:
        refuse_predefined(spec.name)
    _check_scope(spec)
    if spec.config_only:
        return _form(spec)
    if spec.config_from:
        spec = _filled_in(spec, around.networks)
    driver = spec.driver or "bridge"
    if driver in ("host", "null") and not identifier:
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver == "overlay":
        raise EngineError(_NO_SWARM)
    if driver not in ("bridge", "macvlan", "host", "null"):
        raise NotFound(f'plugin "{driver}" not found')
    if spec.ipam_driver not in ("", "default"):
        raise NotFound(f'plugin "{spec.ipam_driver}" not found')
    identifier = identifier or secrets.token_hex(32)
    if driver == "bridge":
        _check_bridge(spec, around, identifier)
    elif driver == "macvlan":
        _check_macvlan(spec, around)
    pools = () if driver in ("host", "null") else _pools(spec, around)
    return Network(
        id=identifier,
        created=datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        name=spec.name,
        driver=driver,
        internal=spec.internal,
        attachable=spec.attachable,
        enable_ipv6=spec.enable_ipv6,
        ipam_options=spec.ipam_options,
        pools=pools,
        given_pools=tuple(spec.pools),
        options=dict(spec.options),
        labels=dict(spec.labels),
        bridge=(spec.options.get(BRIDGE_NAME) or f"br-{identifier[:12]}") if driver == "bridge" else "",
        config_from=spec.config_from,
    )


def _check_scope(spec: NetworkSpec) -> None:
    if spec.scope == "swarm":
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    if spec.scope not in ("", "local"):
        raise EngineError(_NO_SWARM)


def _form(spec: NetworkSpec) -> Network:
    """A network that is there only for others to be filled in from it."""
    if spec.config_from:
        raise Forbidden("a configuration network cannot depend on another configuration network")
    if spec.internal or spec.attachable or spec.scope:
        raise Forbidden(
            "configuration network can only contain network specific fields. "
            "Network operator fields like [ ingress | internal | attachable | scope ] are not supported."
        )
    for given in spec.pools:
        _given_pool(given, ())
    return Network(
        id=secrets.token_hex(32),
        created=datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        name=spec.name,
        driver="null",
        internal=False,
        attachable=False,
        enable_ipv6=spec.enable_ipv6,
        ipam_options=spec.ipam_options,
        pools=(),
        given_pools=tuple(spec.pools),
        options=dict(spec.options),
        labels=dict(spec.labels),
        config_only=True,
    )


def _filled_in(spec: NetworkSpec, networks: Sequence[Network]) -> NetworkSpec:
    """What is asked for, with what its form says."""
    if spec.enable_ipv6 or spec.labels or spec.options or spec.pools or spec.ipam_options:
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a configuration network"
        )
    form = next((each for each in networks if each.config_only and each.name == spec.config_from), None)
    if form is None:
        raise NotFound(f'configuration network "{spec.config_from}" does not exist')
    return replace(
        spec,
        enable_ipv6=form.enable_ipv6,
        ipam_options=form.ipam_options,
        pools=form.given_pools,
        options=form.options,
        labels=form.labels,
    )


def refuse_predefined(name: str) -> None:
    """Nobody makes a network of a name that has a meaning of its own.

    Raises:
        Forbidden: it is such a name.
    """
    if name in (*PREDEFINED, "container", "default"):
        raise Forbidden(f"operation is not permitted on predefined {name} network ")


def _boolean(options: Mapping[str, str], key: str) -> None:
    value = options.get(key)
    if value is not None and value not in _TRUE + _FALSE:
        raise EngineError(
            f'failed to parse {key} value: {value} (strconv.ParseBool: parsing "{value}": invalid syntax)'
        )


def _mtu(options: Mapping[str, str]) -> None:
    value = options.get(MTU)
    if value and not re.fullmatch(r"[+-]?[0-9]+", value):
        raise EngineError(f'failed to parse {MTU} value: {value} (strconv.Atoi: parsing "{value}": invalid syntax)')
    if value and not (int(value) == 0 or 68 <= int(value) <= 65535):
        raise EngineError(f"invalid MTU {value}: a bridge takes 68 to 65535")


def _check_bridge(spec: NetworkSpec, around: Surroundings, identifier: str) -> None:
    for key in (ENABLE_ICC, ENABLE_MASQUERADE, DEFAULT_BRIDGE):
        _boolean(spec.options, key)
    _mtu(spec.options)
    host = spec.options.get(HOST_BINDING)
    if host:
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise EngineError(f"failed to parse {HOST_BINDING} value: {host} (invalid ip address)") from None
    name = spec.options.get(BRIDGE_NAME, "")
    if len(name.encode()) > MOST_NAME_BYTES:
        raise EngineError("failed to check bridge interface existence: numerical result out of range")
    if name and (name in (".", "..") or re.search(r"[/:\s\"\\]|[^\x21-\x7e]", name)):
        raise EngineError(f"{name!r} can't be the name of an interface")
    for other in around.networks:
        if name and other.bridge == name:
            raise Forbidden(
                f"cannot create network {identifier} ({name}): conflicts with network {other.id} ({other.bridge}):"
                " networks have same bridge name"
            )


def _check_macvlan(spec: NetworkSpec, around: Surroundings) -> None:
    _mtu(spec.options)
    mode = spec.options.get(MACVLAN_MODE) or "bridge"
    if mode not in MACVLAN_MODES:
        raise EngineError(f"requested macvlan mode '{mode}' is not valid, 'bridge' mode is the macvlan driver default")
    parent = spec.options.get(PARENT, "")
    for other in around.networks:
        if parent and other.driver == "macvlan" and other.options.get(PARENT) == parent:
            raise EngineError(f"network dm-{other.id[:12]} is already using parent interface {parent}")


def _pools(spec: NetworkSpec, around: Surroundings) -> tuple[AddressPool, ...]:
    used = [pool.subnet for network in around.networks for pool in network.pools]
    pools = [_given_pool(given, used) for given in spec.pools]
    if not spec.enable_ipv6:
        pools = [pool for pool in pools if pool.subnet.version == 4]
    for version in (4, 6):
        if sum(pool.subnet.version == version for pool in pools) > 1 and (spec.driver or "bridge") == "bridge":
            raise Forbidden("bridge driver doesn't support multiple subnets")
    if not any(pool.subnet.version == 4 for pool in pools):
        subnet = choose_subnet(around.pools, [*used, *around.subnets()])
        pools.insert(0, AddressPool(subnet, first_address(subnet)))
    if spec.enable_ipv6 and not any(pool.subnet.version == 6 for pool in pools):
        subnet6 = choose_subnet6(around.pools, [*used, *around.subnets()])
        pools.append(AddressPool(subnet6, first_address(subnet6)))
    return tuple(pools)


def _given_pool(given: Mapping[str, Any], used: Iterable[Subnet]) -> AddressPool:
    text = str(given.get("Subnet") or "")
    try:
        if "/" not in text or "%" in text:
            raise ValueError(text)
        subnet = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise EngineError(f"Invalid subnet {text} : invalid CIDR address: {text}") from None
    check_claimable(subnet)
    for other in used:
        if overlaps(subnet, other):
            raise Forbidden("Pool overlaps with other one on this address space")
    ip_range: Subnet | None = None
    if given.get("IPRange"):
        try:
            parse_address(str(given["IPRange"]).partition("/")[0])
            ip_range = ipaddress.ip_network(str(given["IPRange"]), strict=False)
        except ValueError:
            raise EngineError(f"invalid CIDR address: {given['IPRange']}") from None
        if not contains(subnet, ip_range):
            raise EngineError(f"Invalid range {ip_range}: it is not within the subnet {subnet}")
    auxiliary = {
        str(name): _address(address, f"invalid ip for aux address {address}")
        for name, address in (given.get("AuxiliaryAddresses") or {}).items()
    }
    for name, address in auxiliary.items():
        if address not in subnet:
            raise Forbidden(f"auxiliary address: ({name}:{address}) must belong to the master pool: {subnet}")
    gateway = given.get("Gateway")
    if gateway:
        chosen = _address(str(gateway).partition("/")[0], f"invalid gateway address {gateway} in Ipam configuration")
        try:
            PoolAllocator(AddressPool(subnet)).claim(chosen)
        except EngineError as error:
            raise EngineError(f"failed to allocate gateway ({chosen}): {error}") from None
        if chosen in auxiliary.values():
            raise EngineError(f"failed to allocate gateway ({chosen}): Address already in use")
    else:
        chosen = first_address(subnet, ip_range, auxiliary.values())
    return AddressPool(subnet, chosen, ip_range, auxiliary)


def _address(text: object, reason: str) -> Address:
    try:
        return parse_address(str(text))
    except ValueError:
        raise EngineError(reason) from None
