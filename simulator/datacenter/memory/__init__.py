"""Memory: what N instances need together, how many fit on a machine, and what happens when it has no more.

Containers of one image map the same files, so the page cache holds their programs once; each adds its private pages
and the kernel objects made for it (namespaces, control group, mounts). A VM's guest kernel, guest page cache and
device model are private to it: the host cannot see that two guests hold the same pages, unless it looks for them.

| module | what |
|---|---|
| `footprint` | the arithmetic of a platform's profile |
| `settings` | what a person can set: merging, balloon, overcommitment, working sets |
| `parts` | the memory with which one instance begins |
| `account` | one machine's memory over time |
| `merging` | kernel samepage merging |
| `killing` | who is killed when there is no more |
| `limits` | density, and the limit that bound |
| `ramps` | straight lines over time |
"""

from simulator.datacenter.guests import GuestMemory
from simulator.datacenter.memory.account import MemoryAccount, MemoryUse
from simulator.datacenter.memory.footprint import footprint, marginal, proportional_set_size, weakest_kind
from simulator.datacenter.memory.killing import Candidate, OutOfMemory, choose_victim
from simulator.datacenter.memory.limits import Density, Limit, density
from simulator.datacenter.memory.merging import PageMerging
from simulator.datacenter.memory.parts import PLAIN, InstanceMemory, Parts, parts_of
from simulator.datacenter.memory.settings import BalloonSettings, KsmSettings, MemorySettings, WorkingSet

__all__ = [
    "PLAIN",
    "BalloonSettings",
    "Candidate",
    "Density",
    "GuestMemory",
    "InstanceMemory",
    "KsmSettings",
    "Limit",
    "MemoryAccount",
    "MemorySettings",
    "MemoryUse",
    "OutOfMemory",
    "PageMerging",
    "Parts",
    "WorkingSet",
    "choose_victim",
    "density",
    "footprint",
    "marginal",
    "parts_of",
    "proportional_set_size",
    "weakest_kind",
]
