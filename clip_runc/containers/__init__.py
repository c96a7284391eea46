"""Root filesystems of containers: prepare, tear down, leases, garbage."""
