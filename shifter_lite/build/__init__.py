"""2: pulled, merged, squashed.  From a name in a registry to one squashfs file."""
