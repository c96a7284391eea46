"""The runc-compatible executable: argv, spec edits, the only exec."""
