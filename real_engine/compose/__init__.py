"""Services from a compose file, brought up over the Engine API: ours, or any Docker's.

The file: `documents` reads YAML, `interpolation` fills in variables, `canonical` brings the short forms into the long
ones, `merging` puts several files together, `model` checks it all, and `project` is what comes out.
The work: `host` speaks to a daemon, `container_request` says what a service's container looks like, `convergence` makes
it so, `removal` takes it away, `logs` and `terminal` show and connect. `fleet` has several daemons, `placement` spreads
replicas over them, `balancer` stands in front, and `watch` notices that one is lost.
"""
