"""Backs up Django projects and restores them."""

__version__ = "0.1.0"
