"""Nets with the weights that others published, one file each, and how such files are read."""
