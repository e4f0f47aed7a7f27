"""Containers as the API knows them: created, started, stopped, watched, and removed.

`service` has them all. `record` is what is known of one and kept on disk, `create` makes it from a request, `translate`
tells the kernel path what it means, `lifecycle` moves it from state to state, `restarting` starts it again, `removal`
takes it away, and `views` shows it as Docker does. `reports` takes what the supervisor tells of it, and `adoption` what
an earlier daemon has left.
"""
