"""One replication: everything on one SimPy environment.

SimPy runs the control plane. Requests run in the data plane (`simulator.traffic`), which catches up with every event of
the control plane before it happens, and stops where the control plane must know something.

| module | what |
|---|---|
| `simulation` | the loop that lets both planes advance together, and what the autoscaler sees and does |
| `inputs` | what a scenario gives the data plane |
| `site` | machines, their zones, the registry; who is placed where; what all of it consumes |
| `plane_cores` | a machine's cores, where start-ups share them with requests |
| `replica_set` | instances come up, are pooled, drain, stop and are replaced |
| `provisioning` | machines are ordered and taken away |
| `troubles` | faults, and the out-of-memory killer |
| `record` | what a run leaves |

What the model leaves out, knowingly: with `cores = "dedicated"` start-ups on a machine slow each other but not the
requests served there; a platform's start-up consumes the same for each program; requests wait for no disk but for the
time that `io_operations` says, which counts as core use; an instance has all of its memory, but what it grows by, from
its placement on; looking for equal pages (KSM) takes no core from anybody; a machine that is lost draws idle power.
"""

from simulator.model.inputs import ScenarioNumbers, new_tally, service_of
from simulator.model.record import FaultFelt, RunRecord
from simulator.model.simulation import Model

__all__ = ["FaultFelt", "Model", "RunRecord", "ScenarioNumbers", "new_tally", "service_of"]
