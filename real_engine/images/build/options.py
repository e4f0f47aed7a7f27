"""What one who builds may ask for: the parameters of `POST /build`."""

import platform as machine
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from real_engine.errors import InvalidParameter
from real_engine.images.build.go_syntax import quote

DEFAULT_DOCKERFILE = "Dockerfile"
_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armhf": "arm",
    "i386": "386",
    "i686": "386",
}
_COMPONENT = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and architecture, as in `linux/arm/v7`."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """Read `os/architecture[/variant]`, or an architecture or system alone.

        Raises:
            InvalidParameter: it is none, or not of Linux.
        """
        parts = text.split("/")
        for part in parts:
            if not _COMPONENT.fullmatch(part):
                raise InvalidParameter(
                    f"{quote(part)} is an invalid component of {quote(text)}: platform specifier component must match "
                    f'"^[A-Za-z0-9_-]+$": invalid argument'
                )
        if len(parts) > 3:
            raise InvalidParameter(f"{quote(text)}: cannot parse platform specifier: invalid argument")
        if len(parts) == 1:
            host = cls.host()
            if parts[0].lower() == "linux":
                return host
            return cls("linux", _ARCHITECTURES.get(parts[0].lower(), parts[0].lower()))
        if parts[0].lower() != "linux":
            raise InvalidParameter(f"{quote(parts[0])}: operating system is not supported")
        architecture = _ARCHITECTURES.get(parts[1].lower(), parts[1].lower())
        variant = parts[2].lower() if len(parts) == 3 else ""
        return cls("linux", architecture, "" if (architecture, variant) == ("arm64", "v8") else variant)

    @classmethod
    def host(cls) -> "Platform":
        """The platform of this machine."""
        name = machine.machine().lower()
        return cls("linux", _ARCHITECTURES.get(name, name), "v7" if name == "armv7l" else "")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def arguments(self) -> dict[str, str]:
        """The build arguments that tell about the platform, here that of the machine as well as of the image."""
        host = self.host()
        return {
            "TARGETPLATFORM": str(self),
            "TARGETOS": self.os,
            "TARGETARCH": self.architecture,
            "TARGETVARIANT": self.variant,
            "BUILDPLATFORM": str(host),
            "BUILDOS": host.os,
            "BUILDARCH": host.architecture,
            "BUILDVARIANT": host.variant,
        }


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """The options of one build; memory and shared memory in bytes, the CPU's period and quota in microseconds."""

    dockerfile: str = DEFAULT_DOCKERFILE
    tags: tuple[str, ...] = ()
    target: str = ""
    arguments: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    quiet: bool = False
    no_cache: bool = False
    cache_from: tuple[str, ...] = ()
    pull: bool = False
    remove: bool = True
    force_remove: bool = False
    platform: Platform | None = None
    network: str = ""
    extra_hosts: tuple[str, ...] = ()
    shm_bytes: int = 0
    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cgroup_parent: str = ""
    ulimits: tuple[Mapping[str, Any], ...] = ()
    security: tuple[str, ...] = ()
    credentials: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Who we are at which registry, as in `X-Registry-Config`."""

    def host_config(self) -> dict[str, Any]:
        """What steps are run with, as in `POST /containers/create`."""
        return {
            "NetworkMode": self.network if self.network not in ("", "default") else "default",
            "ExtraHosts": list(self.extra_hosts),
            "ShmSize": self.shm_bytes,
            "Memory": self.memory_bytes,
            "MemorySwap": self.memory_swap_bytes,
            "CpuShares": self.cpu_shares,
            "CpuPeriod": self.cpu_period,
            "CpuQuota": self.cpu_quota,
            "CpusetCpus": self.cpuset_cpus,
            "CpusetMems": self.cpuset_mems,
            "CgroupParent": self.cgroup_parent,
            "Ulimits": [dict(limit) for limit in self.ulimits],
            "SecurityOpt": list(self.security),
            "LogConfig": {"Type": "none", "Config": {}},
        }
