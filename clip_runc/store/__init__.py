"""Verified chunks of layers on disk, fetched once, when they are read."""
