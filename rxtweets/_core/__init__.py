"""What every stage builds on: observables with chunks, settlement, telemetry, events, limits.

May import: `rxtweets._messages` and below.
"""
