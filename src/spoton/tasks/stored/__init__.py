"""Rows of files too large to hold as objects: read once, kept in Arrow, and accessed through a memory map.

The task is the same as from a small file with these rows: the same splits in the same order, notes, labels and hash.
"""
