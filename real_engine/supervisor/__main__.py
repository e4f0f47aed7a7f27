"""`python -m real_engine.supervisor ROOT READY`: the supervisor of a data root, started by a daemon.

READY is a descriptor to which it writes `ready` once it listens, or why it cannot, in a line. It forks at once, and the
first process ends: the supervisor is nobody's child, and outlives the daemon.
"""

import os
import sys


def main() -> int:
    """Run the supervisor; the exit status."""
    root, ready = sys.argv[1], int(sys.argv[2])
    os.set_inheritable(ready, False)
    os.closerange(3, ready)
    os.closerange(ready + 1, 1024)  # such as that of our executable
    if os.fork():  # before anything big is imported, and while there is one thread
        os._exit(0)
    # Only now, since the first process has no use for them.
    import gc
    from pathlib import Path

    from real_engine.errors import EngineError
    from real_engine.supervisor.server import AlreadyRunning, Supervisor

    os.chdir("/")
    os.umask(0o022)
    _allow_many_descriptors()
    try:
        supervisor = Supervisor(Path(root))
    except AlreadyRunning as error:
        os.write(ready, f"busy {error}\n".encode())
        return 3
    except (EngineError, OSError) as error:
        os.write(ready, f"failed {error}\n".encode())
        return 1
    os.write(ready, b"ready\n")
    os.close(ready)
    gc.collect()
    gc.freeze()  # what is there by now stays: the collector needn't look at it, nor write to its pages
    supervisor.run()
    return 0


def _allow_many_descriptors() -> None:
    """A container takes half a dozen. Docker's own limit is a million, and so containers have it from us too."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1 << 20 if hard == resource.RLIM_INFINITY else min(hard, 1 << 20)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
