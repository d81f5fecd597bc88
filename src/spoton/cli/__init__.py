"""The command line: one thin command per verb.

A command turns its arguments into a call of another room and prints what came back. Nothing is decided,
computed or written here, and nothing heavy is imported before a command runs.
"""
