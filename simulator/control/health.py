"""Health checks: the balancer learns late that an instance has come, and later that it has gone.

Probes come at equal distances from the start of an instance's program on, the first at a moment of its own. The first
that succeeds makes an instance routable; several in a row must fail before it is not (Kubernetes documentation,
Configure Liveness, Readiness and Startup Probes: `periodSeconds` 10, `timeoutSeconds` 1, `failureThreshold` 3,
`successThreshold` 1).
"""

import math
from typing import Annotated

from pydantic import Field

from simulator.records import NonNegative, StrictModel


class HealthCheckSettings(StrictModel):
    """`[health_check]`: how the balancer learns which instances take requests. The defaults are Kubernetes'.

    Attributes:
        period_seconds: from one probe of an instance to the next.
        timeout_seconds: after which a probe that is not answered has failed; an instance that is gone answers none.
        failures: so many probes in a row must fail.
    """

    period_seconds: Annotated[float, Field(ge=0.001, le=86400)] = 10.0
    timeout_seconds: NonNegative = 1.0
    failures: Annotated[int, Field(ge=1, le=1000)] = 3

    def seconds_until_seen_ready(self, began: float, ready: float, phase: float) -> float:
        """From the moment at which an instance can take requests until a probe has found that out.

        Args:
            began: when its program was started, seconds: the first probe comes `phase` of a period later.
            ready: when it can take requests.
            phase: in [0, 1).
        """
        return self._next_probe(began, ready, phase) - ready

    def seconds_until_seen_gone(self, began: float, gone: float, phase: float) -> float:
        """From the moment at which an instance answers no more until the balancer leaves it out.

        Args:
            began, phase: as above.
            gone: when it ended.
        """
        first = self._next_probe(began, gone, phase)
        return first + (self.failures - 1) * self.period_seconds + self.timeout_seconds - gone

    def _next_probe(self, began: float, seconds: float, phase: float) -> float:
        """The first probe at or after `seconds`."""
        first = began + phase * self.period_seconds
        return first + max(math.ceil((seconds - first) / self.period_seconds), 0) * self.period_seconds
