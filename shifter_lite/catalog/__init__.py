"""3: recorded.  What people and the worker ask about images, in SQLite on the local disk."""
