"""A container: what to run, the sandbox around it, and its end."""
