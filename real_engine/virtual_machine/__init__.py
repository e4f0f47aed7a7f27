"""A real guest under QEMU, for the other side of every comparison.

guest_files.py    what a guest starts from: a kernel of the distribution and an initramfs that we build
cpio.py           the archive format of that initramfs
guest_init.sh     the guest's first process
qemu.py           the command line under which QEMU runs, with least privilege
guest.py          boots a guest, timing each phase, and ends it
accelerators.py   whether KVM really boots a guest here
"""
