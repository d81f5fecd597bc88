"""Rows of files too large to be held as objects: read once, kept in Arrow, looked at through a map of the file.

The same rows give the same task as a small file does: the same splits in the same order, notes, labels and hash.
"""
