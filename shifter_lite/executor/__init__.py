"""Builds elsewhere: each as one job of the site's own batch system."""
