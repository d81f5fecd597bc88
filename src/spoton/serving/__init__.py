"""Serves prompts: one frozen model answers for every prompt of a library over HTTP. Needs `pip install spoton[serve]`.

Requests flow one way: `http.py` (and `completions.py`) -> `service.py` -> `batcher.py` -> `passes.py` ->
the engine. Nothing here tunes, and importing this room imports neither torch nor fastapi.
"""
