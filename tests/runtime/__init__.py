"""The launcher, run for real: FUSE, user namespaces, an ordinary user."""
