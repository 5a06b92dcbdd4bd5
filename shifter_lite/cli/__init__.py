"""What people type: one module a program, each command its arguments, one call, and its output."""
