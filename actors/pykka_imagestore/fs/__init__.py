"""Walks, changes and removes trees that somebody else filled: by directory descriptors only."""
