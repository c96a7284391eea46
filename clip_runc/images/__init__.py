"""From a reference to an index on this machine, and its mount."""
