"""What clip-runc tells of itself: the file of events, metrics, traces."""
