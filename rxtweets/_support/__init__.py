"""Helpers without streams: validation, threads, timers, files, optional imports.

May import: `rxtweets.errors`.
"""
