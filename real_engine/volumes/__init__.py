"""Volumes: data that outlive a container, and what a container is asked to mount.

`store` keeps the volumes and who uses them, `local` is the driver that keeps them on this disk, `mounts` turns what a
client asked for into mount points, `specifications` reads one such wish, and `contents` fills and measures a volume.
"""
