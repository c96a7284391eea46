"""What an index is made of: tar, checkpoints, EROFS, the .clip file.  Bytes in, bytes out."""
