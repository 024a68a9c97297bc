"""All contracts over sqs.fifo."""

from tests.brokers.engine_contract import *  # noqa: F403 - the tests
from tests.brokers.queue_contract import *  # noqa: F403 - the tests
from tests.brokers.shard_contract import *  # noqa: F403 - the tests

ENGINE = "sqs.fifo"
