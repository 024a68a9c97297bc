"""Both contracts over an engine of a third party."""

from tests.brokers.engine_contract import *  # noqa: F403 - the tests
from tests.brokers.queue_contract import *  # noqa: F403 - the tests

ENGINE = "plain"
