"""By what policy something is tried again, if nobody says otherwise."""

from tenacity import stop_after_attempt, wait_exponential, wait_random

__all__ = ["STOP", "WAIT"]

STOP = stop_after_attempt(5)

WAIT = wait_exponential(multiplier=0.5, max=30.0) + wait_random(0.0, 1.0)
"""0.5 s, doubled each time, to 30 s; and up to a second more, so that many do not come at once."""
