"""One measured run, in this process: a job comes on standard input, and a sample goes to standard output, both JSON.

A process of its own for each run, because memory that one run has used and what it has imported would stay with the
next.
"""

import gc
import json
import sys
import time
from typing import Any

from classroom.bench import resident
from classroom.bench.cases import Job
from classroom.bench.engines import ENGINES


def measure(job: Job, seed: int) -> dict[str, Any]:
    """Run `job` once and measure it.

    Returns:
        `wall_seconds` and `cpu_seconds` (of this process, all threads) of the run, `peak_bytes` above what was resident
        when it began (None where it cannot be known), `resident_bytes` then, `warm_up_seconds` of imports, compilation
        and the warm-up run before it, `requests` and `figures`.
    """
    began = time.perf_counter()
    prepared = ENGINES[job.engine](job, seed)
    warm_up = time.perf_counter() - began
    gc.collect()
    before = resident.begin_peak()
    cpu, wall = time.process_time(), time.perf_counter()
    found = prepared.run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    most = resident.peak()
    answer = prepared.read(found)
    alone = job.workers == 1
    return {
        "wall_seconds": wall,
        # What further processes used is not this one's to know.
        "cpu_seconds": cpu if alone else None,
        "peak_bytes": most - before if alone and most is not None and before is not None else None,
        "resident_bytes": before,
        "warm_up_seconds": warm_up,
        "requests": answer.requests,
        "figures": answer.figures,
    }


def main() -> int:
    """Measure what standard input asks for; 2 and a line on standard error where the simulator refuses it."""
    from simulator.errors import SimulatorError

    asked = json.load(sys.stdin)
    # Only the sample may go to standard output, whatever an engine prints.
    output, sys.stdout = sys.stdout, sys.stderr
    try:
        sample = measure(Job(**asked["job"]), asked["seed"])
    except SimulatorError as error:
        print(error, file=sys.stderr)
        return 2
    json.dump(sample, output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
