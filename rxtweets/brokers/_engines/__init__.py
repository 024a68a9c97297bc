"""The engines of queues: each is a class of `rxtweets.brokers.Engine`, imported when used.

The docstring of each class says what it guarantees, and which options its URL takes. A file beside
it, if any, has what only talks to that broker. `rxtweets.brokers.connect` finds them by URL.
May import: the protocol of `rxtweets.brokers._engine`, its values, and what is below the room.
"""
