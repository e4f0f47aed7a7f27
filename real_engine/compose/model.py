"""What a compose file may say, in the canonical form (see `canonical`).

Source: compose-spec, 04-version-and-name.md to 09-secrets.md. A key that isn't known is refused, with the nearest one
that is; so is a key of the specification that this program doesn't follow, by its own message. `x-…` is free.
"""

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from real_engine.compose.quantities import duration_nanoseconds, size_bytes
from real_engine.errors import InvalidParameter

Size = Annotated[int, BeforeValidator(size_bytes)]
"""Bytes; -1 is without limit."""
Duration = Annotated[int, BeforeValidator(duration_nanoseconds)]
"""Nanoseconds."""
Texts = list[str]
TextMap = dict[str, str]

_NAME = r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$"

_NOT_FOLLOWED = {
    "credential_spec": "it is for Windows",
    "develop": "there is no `watch` of sources",
    "gpus": "this engine hands out no GPUs",
    "isolation": "it is for Windows",
    "models": "this program starts no models",
    "post_start": "hooks are not run",
    "pre_stop": "hooks are not run",
    "provider": "this program runs no providers",
    "use_api_socket": "mount the socket by `volumes`",
    "volume_driver": "name it at the volume, by `driver`",
}


class _Part(BaseModel):
    """A mapping of the file: unknown keys are errors, but `x-…`."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _without_extensions(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: inner for key, inner in value.items() if not key.startswith("x-") or key in cls.model_fields}
        return value


class Build(_Part):
    """How an image is built."""

    context: str = "."
    dockerfile: str = ""
    dockerfile_inline: str = ""
    args: dict[str, str | None] = {}
    target: str = ""
    labels: TextMap = {}
    cache_from: Texts = []
    no_cache: bool = False
    pull: bool = False
    network: str = ""
    shm_size: Size = 0
    extra_hosts: dict[str, Texts] = {}
    platforms: Texts = []
    tags: Texts = []
    isolation: str = ""


class Port(_Part):
    """A port of the container, and where on the machine it is published (`published` may be a range)."""

    target: int = Field(gt=0, le=65535)
    published: str = ""
    host_ip: str = ""
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    mode: Literal["ingress", "host"] = "ingress"
    name: str = ""
    app_protocol: str = ""


class BindOptions(_Part):
    """Of a mount of a directory of the machine."""

    propagation: Literal["", "private", "rprivate", "slave", "rslave", "shared", "rshared"] = ""
    create_host_path: bool = True
    selinux: Literal["", "z", "Z"] = ""
    recursive: Literal["enabled", "disabled", "writable", "readonly"] = "enabled"


class VolumeOptions(_Part):
    """Of a mount of a volume."""

    nocopy: bool = False
    subpath: str = ""
    labels: TextMap = {}


class TmpfsOptions(_Part):
    """Of a mount in memory."""

    size: Size = 0
    mode: int | None = None


class Mount(_Part):
    """Something that is mounted in the container."""

    type: Literal["bind", "volume", "tmpfs"] = "volume"
    source: str = ""
    target: str = Field(min_length=1)
    read_only: bool = False
    bind: BindOptions | None = None
    volume: VolumeOptions | None = None
    tmpfs: TmpfsOptions | None = None
    consistency: str = ""


class Grant(_Part):
    """A secret or config that a service gets to see."""

    source: str
    target: str = ""
    uid: str = ""
    gid: str = ""
    mode: int | None = None


class Dependency(_Part):
    """On what a service waits before it starts."""

    condition: Literal["service_started", "service_healthy", "service_completed_successfully"] = "service_started"
    required: bool = True
    restart: bool = False


class HealthCheck(_Part):
    """How it is found out whether a container is well."""

    test: Texts = []
    interval: Duration = 0
    timeout: Duration = 0
    retries: int = Field(0, ge=0)
    start_period: Duration = 0
    start_interval: Duration = 0
    disable: bool = False


class Attachment(_Part):
    """How a service is on a network."""

    aliases: Texts = []
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: Texts = []
    mac_address: str = ""
    driver_opts: TextMap = {}
    priority: int = 0
    gw_priority: int = 0


class DeviceRequest(_Part):
    """Devices by what they can do; refused when the container is made, as the engine has no such driver."""

    capabilities: Texts
    driver: str = ""
    count: int | str = 1
    device_ids: Texts = []
    options: TextMap = {}


class Resources(_Part):
    """What may be used at most, or is kept free at least. `cpus` is a number of CPUs, `memory` bytes."""

    cpus: float = Field(0, ge=0)
    memory: Size = 0
    pids: int = 0
    devices: list[DeviceRequest] = []
    generic_resources: list[dict[str, Any]] = []


class ResourceLimits(_Part):
    """Both."""

    limits: Resources = Resources()
    reservations: Resources = Resources()


class RestartPolicy(_Part):
    """When a container is started again."""

    condition: Literal["none", "on-failure", "any"] = "any"
    delay: Duration = 0
    max_attempts: int = 0
    window: Duration = 0


class Deploy(_Part):
    """How many replicas, and what each may use. What only a swarm follows is taken and has no effect."""

    mode: Literal["replicated", "global", "replicated-job", "global-job"] = "replicated"
    replicas: int | None = Field(None, ge=0)
    resources: ResourceLimits = ResourceLimits()
    restart_policy: RestartPolicy | None = None
    labels: TextMap | Texts = {}
    placement: dict[str, Any] = {}
    update_config: dict[str, Any] = {}
    rollback_config: dict[str, Any] = {}
    endpoint_mode: str = ""


class Logging(_Part):
    """Where output goes."""

    driver: str = ""
    options: TextMap = {}


class Ulimit(_Part):
    """A limit of processes."""

    soft: int
    hard: int


class Device(_Part):
    """A device of the machine."""

    source: str
    target: str = ""
    permissions: str = "rwm"


class EnvFile(_Part):
    """A file of variables."""

    path: str
    required: bool = True
    format: Literal["", "raw"] = ""


class Extends(_Part):
    """Whose keys a service begins with."""

    service: str
    file: str = ""


class Service(_Part):
    """A service: the containers that do one thing."""

    annotations: TextMap = {}
    attach: bool = True
    build: Build | None = None
    cap_add: Texts = []
    cap_drop: Texts = []
    cgroup: Literal["", "host", "private"] = ""
    cgroup_parent: str = ""
    command: Texts | None = None
    configs: list[Grant] = []
    container_name: str = Field("", pattern=r"^$|^[a-zA-Z0-9][a-zA-Z0-9_.-]+$")
    cpu_count: int = 0
    cpu_period: Annotated[int, BeforeValidator(lambda value: _microseconds(value))] = 0
    cpu_quota: Annotated[int, BeforeValidator(lambda value: _microseconds(value))] = 0
    cpu_rt_period: Annotated[int, BeforeValidator(lambda value: _microseconds(value))] = 0
    cpu_rt_runtime: Annotated[int, BeforeValidator(lambda value: _microseconds(value))] = 0
    cpu_shares: int = 0
    cpus: float = Field(0, ge=0)
    cpuset: str = ""
    depends_on: dict[str, Dependency] = {}
    deploy: Deploy = Deploy()
    device_cgroup_rules: Texts = []
    devices: list[Device] = []
    dns: Texts = []
    dns_opt: Texts = []
    dns_search: Texts = []
    domainname: str = ""
    entrypoint: Texts | None = None
    env_file: list[EnvFile] = []
    environment: dict[str, str | None] = {}
    expose: Texts = []
    extends: Extends | None = None
    external_links: Texts = []
    extra_hosts: dict[str, Texts] = {}
    group_add: Texts = []
    healthcheck: HealthCheck | None = None
    hostname: str = ""
    image: str = ""
    init: bool | None = None
    ipc: str = ""
    labels: TextMap = {}
    links: Texts = []
    logging: Logging | None = None
    mac_address: str = ""
    mem_limit: Size = 0
    mem_reservation: Size = 0
    mem_swappiness: int | None = None
    memswap_limit: Size = 0
    network_mode: str = ""
    networks: dict[str, Attachment | None] = {}
    oom_kill_disable: bool = False
    oom_score_adj: int = Field(0, ge=-1000, le=1000)
    pid: str = ""
    pids_limit: int = 0
    platform: str = ""
    ports: list[Port] = []
    privileged: bool = False
    profiles: Texts = []
    pull_policy: str = ""
    read_only: bool = False
    restart: str = ""
    runtime: str = ""
    scale: int | None = Field(None, ge=0)
    secrets: list[Grant] = []
    security_opt: Texts = []
    shm_size: Size = 0
    stdin_open: bool = False
    stop_grace_period: Duration = 10_000_000_000
    stop_signal: str = ""
    storage_opt: TextMap = {}
    sysctls: TextMap = {}
    tmpfs: Texts = []
    tty: bool = False
    ulimits: dict[str, Ulimit] = {}
    user: str = ""
    userns_mode: str = ""
    uts: str = ""
    volumes: list[Mount] = []
    volumes_from: Texts = []
    working_dir: str = ""

    @property
    def replicas(self) -> int:
        """How many containers it is to have."""
        if self.scale is not None:
            return self.scale
        return 1 if self.deploy.replicas is None else self.deploy.replicas

    @model_validator(mode="after")
    def _consistent(self) -> "Service":
        if not self.image and self.build is None:
            raise ValueError("it has neither an image nor a build context specified")
        if self.network_mode and self.networks:
            raise ValueError("it declares mutually exclusive `network_mode` and `networks`")
        if self.scale is not None and self.deploy.replicas is not None and self.scale != self.deploy.replicas:
            raise ValueError("`scale` and `deploy.replicas` contradict each other")
        if self.container_name and self.replicas > 1:
            raise ValueError(f"a container_name allows one container, and {self.replicas} are asked for")
        return self


class AddressPool(_Part):
    """Addresses of a network."""

    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    aux_addresses: TextMap = {}


class AddressManagement(_Part):
    """How a network gives out addresses."""

    driver: str = ""
    config: list[AddressPool] = []
    options: TextMap = {}


class _Named(_Part):
    """What the file gives a name of its own, and the engine another."""

    name: str = ""
    external: bool = False


class Network(_Named):
    """A network."""

    driver: str = ""
    driver_opts: TextMap = {}
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    internal: bool = False
    ipam: AddressManagement | None = None
    labels: TextMap = {}


class Volume(_Named):
    """A volume."""

    driver: str = ""
    driver_opts: TextMap = {}
    labels: TextMap = {}


class Secret(_Named):
    """A secret or config: a file, a variable's value, or (configs) a text of the compose file."""

    file: str = ""
    environment: str = ""
    content: str = ""
    labels: TextMap = {}
    driver: str = ""
    template_driver: str = ""

    @model_validator(mode="after")
    def _one_source(self) -> "Secret":
        given = [name for name in ("file", "environment", "content") if getattr(self, name)]
        if self.external or self.driver or self.template_driver:
            raise ValueError("an external one needs a swarm: name a `file`, or a variable by `environment`")
        if len(given) != 1:
            raise ValueError("exactly one of `file`, `environment` and `content` must be set")
        return self


class Host(_Part):
    """A daemon. `address` is where its published ports are reached from here."""

    url: str
    address: str = ""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class Spreading(_Part):
    """`x-onggi`: daemons by name, and the services that are spread over them (all with ports, if none is named)."""

    hosts: dict[str, Host] = {}
    spread: Texts | None = None


class Document(_Part):
    """A whole compose file."""

    version: str | None = None
    name: str = ""
    services: dict[Annotated[str, Field(pattern=_NAME)], Service] = {}
    networks: dict[Annotated[str, Field(pattern=_NAME)], Network] = {}
    volumes: dict[Annotated[str, Field(pattern=_NAME)], Volume] = {}
    secrets: dict[Annotated[str, Field(pattern=_NAME)], Secret] = {}
    configs: dict[Annotated[str, Field(pattern=_NAME)], Secret] = {}
    spreading: Spreading = Field(default=Spreading(), alias="x-onggi")

    @model_validator(mode="before")
    @classmethod
    def _without_extensions(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: inner for key, inner in value.items() if not key.startswith("x-") or key == "x-onggi"}
        return value


def check(document: dict[str, Any]) -> Document:
    """The document, checked.

    Raises:
        InvalidParameter: the first thing that is wrong, with the way to it, and the nearest known key for a typo.
    """
    try:
        return Document.model_validate(document)
    except ValidationError as error:
        raise InvalidParameter("; ".join(dict.fromkeys(map(_line, error.errors()[:5])))) from error


def _line(error: Any) -> str:
    way = [part for part in error["loc"] if part != "[key]"]
    where = ".".join(str(part) for part in way) or "the file"
    if error["type"] == "extra_forbidden":
        key = str(way[-1])
        parent = ".".join(str(part) for part in way[:-1]) or "the file"
        if key in _NOT_FOLLOWED:
            return f"{parent}: `{key}` is not supported here: {_NOT_FOLLOWED[key]}"
        near = get_close_matches(key, _known_keys(way[:-1]), n=1)
        return f"{parent}: additional property `{key}` is not allowed" + (
            f": did you mean `{near[0]}`?" if near else ""
        )
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}"
    given = error.get("input")
    shown = f", and not {given!r}" if isinstance(given, (str, int, float, bool)) else ""
    return f"{where}: {error['msg'][:1].lower()}{error['msg'][1:]}{shown}"


def _known_keys(way: list[Any]) -> list[str]:
    """The keys of the mapping at the end of `way`."""
    kind: Any = Document
    for part in way:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part)) or next(
                (one for one in kind.model_fields.values() if one.alias == part), None
            )
            kind = field.annotation if field is not None else None
        else:
            kind = None if isinstance(kind, type) else _element(kind)
            continue
        kind = _unwrapped(kind)
    kind = _unwrapped(kind)
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _element(kind: Any) -> Any:
    """What a list or mapping holds."""
    arguments = getattr(kind, "__args__", ())
    return _unwrapped(arguments[-1]) if arguments else None


def _unwrapped(kind: Any) -> Any:
    """The model in `Model | None`."""
    arguments = [one for one in getattr(kind, "__args__", ()) if one is not type(None)]
    if getattr(kind, "__origin__", None) in (list, dict):
        return kind
    return arguments[0] if len(arguments) == 1 else kind


def _microseconds(value: object) -> int:
    """A number of microseconds, or a duration."""
    text = str(value)
    return int(text) if text.lstrip("-").isdigit() else duration_nanoseconds(value) // 1000
