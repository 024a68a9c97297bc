"""All contracts over pubsub."""

from tests.brokers.engine_contract import *  # noqa: F403 - the tests
from tests.brokers.queue_contract import *  # noqa: F403 - the tests
from tests.brokers.shard_contract import *  # noqa: F403 - the tests

ENGINE = "pubsub"
