"""What all tests have in common."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes is a fact about the machine; what must be quick has a test of its own.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
