"""The kernel's words and no policy: system calls, mounts, cgroups, capabilities, seccomp."""
