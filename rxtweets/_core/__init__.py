"""The base of every stage: observables with chunks, settlement, telemetry, events, limits.

May import: `rxtweets._messages` and below.
"""
