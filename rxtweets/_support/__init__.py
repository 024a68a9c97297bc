"""Helpers that know nothing of streams: validation, threads, timers, files, optional imports.

May import: `rxtweets.errors`.
"""
