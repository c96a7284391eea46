"""Registries: references, credentials, manifests, ranges.  The only room that knows oras."""
