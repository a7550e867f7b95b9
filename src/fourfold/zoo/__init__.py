"""Folders to share: a surface, what its networks need beside it, and what it is."""
