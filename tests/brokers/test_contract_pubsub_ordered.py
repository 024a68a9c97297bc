"""The contract of shards over pubsub with message ordering; the others hold without it."""

from tests.brokers.shard_contract import *  # noqa: F403 - the tests

ENGINE = "pubsub.ordered"
