"""What N instances of one image need together, and what one more needs: the arithmetic of a platform's profile."""

from simulator.datacenter.platforms import Memory, Quantity


def footprint(memory: Memory, instances: int, application_bytes: float = 0.0) -> float:
    """Bytes that `instances` instances of one image need on one machine: `shared + N * (private + kernel)`.

    Args:
        memory: of the platform.
        instances: N, 0 or more. Nothing is shared while nothing runs.
        application_bytes: private bytes of the application inside each instance.
    """
    if instances <= 0:
        return 0.0
    return memory.shared_bytes.value + instances * marginal(memory, application_bytes)


def marginal(memory: Memory, application_bytes: float = 0.0) -> float:
    """Bytes that one more instance of an image that already runs needs: `private + kernel`."""
    return memory.private_bytes.value + memory.kernel_bytes.value + application_bytes


def proportional_set_size(memory: Memory, instances: int) -> float:
    """PSS in bytes of one among `instances` instances of one image: private pages and an equal part of the shared.

    That is what /proc/PID/smaps_rollup says; pages of the kernel itself are not in it.
    """
    return memory.private_bytes.value + memory.shared_bytes.value / max(instances, 1)


def weakest_kind(*quantities: Quantity) -> str:
    """What a figure computed from `quantities` may call itself: measured only if every part was measured."""
    kinds = {quantity.kind for quantity in quantities if quantity.value or quantity.high}
    return next((kind for kind in ("published", "simulated") if kind in kinds), "measured")
