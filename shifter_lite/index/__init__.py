"""4: published, resolved.  The file that tells every compute node where an image lies."""
