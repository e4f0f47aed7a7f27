"""A container engine and a QEMU guest that measure what the simulator explains. Linux only, and it says so kindly."""
