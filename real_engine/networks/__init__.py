"""Networks of containers: bridges, addresses, names and published ports."""

from real_engine.networks.name_files import dns_config, hosts_file
from real_engine.networks.networks import Networks
from real_engine.networks.ports import PortBinding, parse_bindings
from real_engine.networks.spec import DnsOptions, Endpoint, EndpointRequest, Network, NetworkSpec

__all__ = [
    "DnsOptions",
    "Endpoint",
    "EndpointRequest",
    "Network",
    "NetworkSpec",
    "Networks",
    "PortBinding",
    "dns_config",
    "hosts_file",
    "parse_bindings",
]
