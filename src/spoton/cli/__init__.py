"""The command line: one thin command per verb.

A command turns its arguments into a call of another package and prints the result. Nothing is decided,
computed or written here, and nothing heavy is imported before a command runs.
"""
