"""Sizes and device numbers."""

from __future__ import annotations

import os

import pytest

from clip_runc.index import erofs_format as fmt


def test_structures_have_the_sizes_of_erofs_fs_h() -> None:
    structures = (fmt.SUPER, fmt.DEVICE, fmt.INODE, fmt.DIRENT, fmt.CHUNK, fmt.XATTR_HEADER)
    assert [one.size for one in structures] == [128, 128, 64, 12, 8, 12]
    assert fmt.XATTR_ENTRY.size == 4
    assert fmt.DEVICE_TABLE % fmt.DEVICE.size == 0


@pytest.mark.parametrize("numbers", [(0, 0), (1, 3), (259, 70_000), (4095, 0xFFFFF)])
def test_device_numbers_as_the_kernel_packs_them(numbers: tuple[int, int]) -> None:
    assert fmt.decode_device(fmt.encode_device(*numbers)) == numbers
    assert fmt.encode_device(*numbers) == os.makedev(*numbers) & 0xFFFFFFFF
