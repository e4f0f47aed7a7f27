"""Containers as the API knows them: created, started, stopped, watched, and removed.

`record` is what is known of one and kept on disk, `create` makes it from a request, `translate` tells the kernel path
what it means, `lifecycle` moves it from state to state, and `views` shows it as Docker does.
"""
