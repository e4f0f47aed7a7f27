"""The supervisor: one small process that holds the containers of a data root, and outlives the daemon.

It imports as little as it can, for its memory is what every idle container pays for. It has one thread, since a process
with several cannot clone cheaply (see `real_engine.linux.processes`); only a log that was asked to be non-blocking has
one more (`log_buffer`). The daemon speaks to it through `client`.
"""
