"""clipctl, one file a command."""
