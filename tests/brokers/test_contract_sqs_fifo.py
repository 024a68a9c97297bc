"""The contracts of engines and of shards over sqs.fifo; queues differ in nothing else from sqs."""

from tests.brokers.engine_contract import *  # noqa: F403 - the tests
from tests.brokers.shard_contract import *  # noqa: F403 - the tests

ENGINE = "sqs.fifo"
