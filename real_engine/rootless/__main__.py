"""`python -m real_engine.rootless RUN READY UPLINK`: the keeper of a data root, started by `onggi engine serve`.

RUN is the data root's directory of that name, READY a descriptor to which it writes `ready` once it listens, or why it
can't, in a line. It forks at once, and the first process ends: the keeper is nobody's child, and outlives the daemon.
"""

import os
import signal
import sys


def main() -> int:
    """Run the keeper; the exit status."""
    run, ready, choice = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    os.set_inheritable(ready, False)
    if os.fork():
        os._exit(0)
    from pathlib import Path

    from real_engine.errors import Conflict, EngineError
    from real_engine.rootless.keeper import Keeper

    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        keeper = Keeper(Path(run), choice)
    except Conflict as error:
        os.write(ready, f"busy {error}\n".encode())
        return 3
    except (EngineError, OSError) as error:
        os.write(ready, f"failed {error}\n".encode())
        return 1
    os.chdir("/")
    os.write(ready, b"ready\n")
    os.close(ready)
    keeper.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
