"""What runc sees: its argv, the edits of a spec, and the only exec."""
