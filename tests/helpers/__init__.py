"""What tests and scripts share: images, registries that serve them, users who want them."""
