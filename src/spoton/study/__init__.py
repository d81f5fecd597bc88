"""The transfer study: sources x targets x seeds, what was measured, and what follows from it."""
