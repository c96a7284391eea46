"""EROFS on disk, as far as an index uses it.  Linux: fs/erofs/erofs_fs.h.

The dialect: blocks of 512 bytes, 64-byte inodes, no compression, no shared xattrs; regular
files are chunk-based with 8-byte indexes that name a device, a layer's tar stream.  The
writer makes nothing else and the checker accepts nothing else.
"""

from __future__ import annotations

import stat
import struct

MAGIC = 0xE0F5E1E2
SUPER_OFFSET = 1024
BLOCK_BITS = 9
BLOCK = 1 << BLOCK_BITS
SLOT = 32  # a nid counts these
INODE_SIZE = 64

COMPAT_MTIME = 0x2
INCOMPAT_CHUNKED_FILE = 0x4
INCOMPAT_DEVICE_TABLE = 0x8
COMPAT = COMPAT_MTIME
"""No checksum of the superblock: fsck.erofs before 1.8.8 computes its length as block size less
1024, which for ours is 4 GiB, and crashes.  The image's section in the index has a sha256."""

SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23s")
"""magic, checksum, compat, blkszbits, extslots, root_nid, inos, build_time, build_time_nsec,
blocks, meta_blkaddr, xattr_blkaddr, uuid, volume, incompat, compression, extra_devices,
devt_slotoff, dirblkbits, xattr_prefixes, xattr_prefix_start, packed_nid, xattr_filter, rest."""
UUID_OFFSET = SUPER_OFFSET + 48

DEVICE = struct.Struct("<64sII56s")
"""tag, blocks, mapped_blkaddr, reserved."""
DEVICE_TABLE = SUPER_OFFSET + SUPER.size

INODE = struct.Struct("<HHHHQIIIIQIIQQ")
"""format, xattr_icount, mode, reserved, size, i_u, ino, uid, gid, mtime, mtime_nsec, nlink,
reserved twice."""
DIRENT = struct.Struct("<QHBB")
"""nid, nameoff, file_type, reserved."""
CHUNK = struct.Struct("<HHI")
"""advise, device, block address."""
XATTR_HEADER = struct.Struct("<IB7s")
"""name_filter, shared_count, reserved."""
XATTR_ENTRY = struct.Struct("<BBH")
"""name_len, name_index, value_size."""

PLAIN = 0
INLINE = 2
CHUNKED = 4
EXTENDED = 1  # bit 0 of i_format
CHUNK_INDEXES = 0x20
CHUNK_BITS_MASK = 0x1F
MAX_CHUNK_BITS = BLOCK_BITS + CHUNK_BITS_MASK
NULL_ADDRESS = 0xFFFFFFFF
MAX_BLOCKS = 0xFFFFFFFE
ROOT_LIMIT = 0xFFFF * SLOT
NAME_MAX = 255
LINK_MAX = 4095

FILE_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}

XATTR_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}
ACL_INDEXES = (2, 3)


def xattr_size(icount: int) -> int:
    """Bytes of the xattr area of an inode from ``i_xattr_icount``."""
    return 12 + 4 * (icount - 1) if icount else 0


def encode_device(major: int, minor: int) -> int:
    """Linux's new_encode_dev (include/linux/kdev_t.h)."""
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def decode_device(value: int) -> tuple[int, int]:
    """Linux's new_decode_dev."""
    return (value >> 8) & 0xFFF, (value & 0xFF) | ((value >> 12) & 0xFFF00)


def round_up(value: int, step: int) -> int:
    """The least multiple of ``step`` that is not below ``value``."""
    return -(-value // step) * step
