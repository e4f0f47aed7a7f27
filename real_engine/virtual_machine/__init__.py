"""A real guest under QEMU, for the other side of every comparison."""
