"""Build arguments: what `ARG` declares and where, and what the one who builds sets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PREDEFINED = frozenset(
    name
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (proxy, proxy.lower())
)
"""Arguments that need no ARG; they aren't part of a step's identity, so that a proxy doesn't spoil the cache."""


@dataclass(slots=True)
class BuildArguments:
    """The arguments in one scope: the stage's own, those before the first FROM (`outer`), and those given.

    A given value wins over a default; `None` is an argument declared or given without a value. `platform` are those
    that are known without being given (TARGETARCH and so on), once a stage declares them.
    """

    given: Mapping[str, str | None]
    platform: Mapping[str, str] = field(default_factory=dict)
    outer: dict[str, str | None] = field(default_factory=dict)
    declared: dict[str, str | None] = field(default_factory=dict)
    referenced: set[str] = field(default_factory=set)

    def declare(self, name: str, value: str | None) -> None:
        """What `ARG name` or `ARG name=value` in a stage does."""
        self.declared[name] = value
        self.referenced.add(name)

    def declare_outer(self, name: str, value: str | None) -> None:
        """What ARG before the first FROM does: FROM sees it, and a stage that declares it again."""
        self.declare(name, value)
        self.outer[name] = value

    def stage(self) -> "BuildArguments":
        """The scope of a new stage: nothing declared yet. What it references counts for the whole."""
        return BuildArguments(self.given, self.platform, self.outer, {}, self.referenced)

    def values(self) -> dict[str, str]:
        """The arguments with a value that this scope may use."""
        return self._values(self.declared)

    def outer_values(self) -> dict[str, str]:
        """Those that FROM may use."""
        return {**self.platform, **self._values(self.outer)}

    def beside(self, environment: Iterable[str]) -> list[str]:
        """`name=value` of each argument that no variable of the environment hides, sorted."""
        hidden = {variable.partition("=")[0] for variable in environment}
        return sorted(f"{name}={value}" for name, value in self.values().items() if name not in hidden)

    def counts_for_cache(self, name: str) -> bool:
        """Whether the argument's value is part of what a RUN step is: a predefined one only where it is declared."""
        return name in self.declared or name not in PREDEFINED

    def unused(self) -> list[str]:
        """The names given that no ARG declared, sorted."""
        return sorted(name for name in self.given if name not in PREDEFINED and name not in self.referenced)

    def _values(self, declared: Mapping[str, str | None]) -> dict[str, str]:
        found = {}
        for name in {**declared, **dict.fromkeys(PREDEFINED)}:
            value = self.given.get(name)
            if value is None:
                value = declared.get(name)
            if value is None and name in declared:
                value = self.outer.get(name)
                if value is None:
                    value = self.platform.get(name)
            if value is not None:
                found[name] = value
        return found
