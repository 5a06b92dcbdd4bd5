"""How registries are asked: HTTP that ends, whatever is at the other end of the wire."""
