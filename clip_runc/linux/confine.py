"""What a process without privileges may still ask of the kernel: a seccomp filter, Landlock rules.

For processes that parse what came from a registry.  They are barred from what none of them needs
and holes of kernels are in, again and again: mounts, namespaces, tracing, BPF, keys, io_uring,
modules.  Where the kernel has neither, the identity that was given up is what protects.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from clip_runc.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# include/uapi/linux/{prctl,seccomp,audit,filter}.h
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LD_WORD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000
# CLONE_NEW*: time needs clone3, which is refused as a whole
_NAMESPACES = 0x7E020000

# Refused with EPERM: name, number on x86-64, on arm64 (0: there is none).
_DENIED = (
    ("acct", 163, 89), ("add_key", 248, 217), ("bpf", 321, 280), ("chroot", 161, 51),
    ("clock_settime", 227, 112), ("delete_module", 176, 106), ("finit_module", 313, 273),
    ("fsconfig", 431, 431), ("fsmount", 432, 432), ("fsopen", 430, 430), ("fspick", 433, 433),
    ("init_module", 175, 105), ("io_uring_enter", 426, 426), ("io_uring_register", 427, 427),
    ("io_uring_setup", 425, 425), ("ioperm", 173, 0), ("iopl", 172, 0), ("kcmp", 312, 272),
    ("kexec_file_load", 320, 294), ("kexec_load", 246, 104), ("keyctl", 250, 219),
    ("modify_ldt", 154, 0), ("mount", 165, 40), ("mount_setattr", 442, 442),
    ("move_mount", 429, 429), ("open_by_handle_at", 304, 265), ("open_tree", 428, 428),
    ("perf_event_open", 298, 241), ("pidfd_getfd", 438, 438), ("pivot_root", 155, 41),
    ("process_vm_readv", 310, 270), ("process_vm_writev", 311, 271), ("ptrace", 101, 117),
    ("quotactl", 179, 60), ("reboot", 169, 142), ("request_key", 249, 218), ("setns", 308, 268),
    ("settimeofday", 164, 170), ("swapoff", 168, 225), ("swapon", 167, 224), ("syslog", 103, 116),
    ("umount2", 166, 39), ("unshare", 272, 97), ("userfaultfd", 323, 282),
)  # fmt: skip
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435

# include/uapi/linux/landlock.h: rights over files, by the version that brought them
_EXECUTE, _WRITE = 1 << 0, 1 << 1
_REMOVE_AND_MAKE = 0b1_1111_1111 << 4  # REMOVE_DIR … MAKE_SYM
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_SCOPE_ABSTRACT, _SCOPE_SIGNAL = 1, 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_GET_VERSION, _PATH_BENEATH = 1, 1


def refuse_calls() -> bool:
    """Refuse ``_DENIED`` to this thread and all that it starts; False where that cannot be done.

    Needs no_new_privs.  The filter looks at the number alone (and at clone's flags), so the kernel
    remembers what it says of each call and runs it once (SECCOMP_CACHE, Linux 5.11).
    """
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        return False
    code = program(machine)
    instructions = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog
    filter_ = ctypes.create_string_buffer(
        struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions))
    )
    try:
        syscalls.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(filter_))
    except OSError:
        return False
    return True


def program(machine: str) -> bytes:
    """The filter: struct sock_filter one after the other."""
    denied = [number for _, x86, arm in _DENIED if (number := x86 if machine == "x86_64" else arm)]
    tests: list[tuple[int, int, str]] = []  # code, operand, where to go if it holds
    if machine == "x86_64":
        tests.append((_JGE, _X32, "deny"))
    tests.append((_JEQ, _CLONE3, "missing"))  # libc uses clone then, whose flags can be looked at
    tests += [(_JEQ, number, "deny") for number in sorted(denied)]
    # after the tests: 4 instructions about clone, then allow, deny, missing
    ends = {"allow": len(tests) + 3, "deny": len(tests) + 4, "missing": len(tests) + 5}
    lines = [
        (_LD_WORD, 0, 0, _ARCHITECTURE),
        # one more: the number is loaded next, and the tests count from there
        (_JEQ, 0, ends["deny"] + 1, _ARCHITECTURES[machine]),
        (_LD_WORD, 0, 0, _NUMBER),
    ]
    for place, (code, operand, end) in enumerate(tests):
        lines.append((code, ends[end] - place - 1, 0, operand))
    lines += [
        (_JEQ, 0, 2, _CLONE[machine]),
        (_LD_WORD, 0, 0, _FIRST_ARGUMENT),
        (_JSET, 1, 0, _NAMESPACES),
        (_RET, 0, 0, _ALLOW),
        (_RET, 0, 0, _ERRNO | errno.EPERM),
        (_RET, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def landlock_version() -> int:
    """The version of Landlock that this kernel has, 0 for none."""
    return max(0, _call(_CREATE_RULESET, None, 0, _GET_VERSION))


def write_nowhere_but(directories: Iterable[int]) -> int:
    """From here on this process starts no program and writes to no file but below ``directories``.

    They are descriptors; what is open already is not concerned.  It also reaches no abstract unix
    socket and sends no signal outside (Linux 6.12).  Needs no_new_privs and a process of one
    thread.  The version of Landlock, 0 where there is none.  Raises ``OSError``.
    """
    version = landlock_version()
    if not version:
        return 0
    # reading is open: names are resolved, certificates and modules are loaded, at any time
    writing = _WRITE | _REMOVE_AND_MAKE
    writing |= (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    # struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped
    values = (writing | _EXECUTE, 0, _SCOPE_ABSTRACT | _SCOPE_SIGNAL)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    attributes = ctypes.create_string_buffer(struct.pack("=QQQ", *values)[:size], size)
    ruleset = syscalls.check(_call(_CREATE_RULESET, attributes, size, 0))
    try:
        for fd in directories:
            # struct landlock_path_beneath_attr, packed
            rule = ctypes.create_string_buffer(struct.pack("=Qi", writing, fd))
            syscalls.check(_call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
        syscalls.check(_call(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return version


def _call(number: int, *arguments: ctypes.Array[ctypes.c_char] | int | None) -> int:
    given = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = syscalls.libc.syscall(ctypes.c_long(number), *given)
    return result
