"""Messages, batches, typed events of X, rows, tables, and files of lines.

May import: `rxtweets._support`, `rxtweets.errors`.
"""
