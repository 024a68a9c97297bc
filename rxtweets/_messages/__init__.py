"""What a line of a stream becomes: messages, batches, typed events, rows, tables, files of lines.

May import: `rxtweets._support`, `rxtweets.errors`.
"""
