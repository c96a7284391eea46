"""What an image looks like as a filesystem, and the processes that serve it."""
