"""Hostile and odd images, each with the tree that it is, or why it is refused."""
