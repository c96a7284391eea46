"""Linux system calls and files: mounts, /dev/fuse, atomic writes, privileges.  The only room with ctypes."""
