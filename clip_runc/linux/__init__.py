"""Linux system calls and files: mounts, /dev/fuse, atomic writes, privileges; all of ctypes."""
