"""By what policy something is tried again, if nobody says otherwise."""

from __future__ import annotations

from tenacity import stop_after_attempt, wait_exponential, wait_random

from rxtweets._support.validation import no_class
from rxtweets.errors import ConfigurationError

__all__ = ["STOP", "WAIT", "check_strategies"]

STOP = stop_after_attempt(5)

WAIT = wait_exponential(multiplier=0.5, max=30.0) + wait_random(0.0, 1.0)
"""0.5 s, doubled each time, to 30 s; and up to a second more, so that many do not come at once."""

EXAMPLES = {
    "stop": "tenacity.stop_after_attempt(3)",
    "wait": "tenacity.wait_fixed(1)",
    "retry": "tenacity.retry_if_exception_type(OSError)",
    "sleep": "time.sleep",
}


def check_strategies(**strategies: object) -> None:
    """Refuse what tenacity could not call; ``None`` stands for the default.

    Raises:
        ConfigurationError: one of them is no function, or a class.
    """
    for name, strategy in strategies.items():
        no_class(name, strategy)
        if strategy is not None and not callable(strategy):
            example = EXAMPLES[name]
            raise ConfigurationError(f"{name}={strategy!r}: give a strategy, such as {example}")
