"""Prompts inside other programs: one module per program, which needs its package installed."""
