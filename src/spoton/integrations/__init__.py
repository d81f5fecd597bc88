"""Prompts inside other people's programs: one module for each, which needs its package installed."""
