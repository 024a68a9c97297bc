"""The connections to one Redis server, and its errors as ours."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from rxtweets._support.optional_imports import needed
from rxtweets.brokers._address import Address
from rxtweets.errors import BrokerError, BrokerUnavailable, ConfigurationError, QueueSettingsError

__all__ = ["GroupMissing", "RedisClient"]

log = logging.getLogger("rxtweets")

TIMEOUT = 4.0
"""Seconds to connect, and seconds to wait for a reply: a loss is noticed after both at most."""

TRANSIENT = {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM"}
"""Codes of errors that may go away; the client's own classes cover others."""


class RedisClient:
    """The connections to one server, and its errors as ours."""

    def __init__(self, address: Address) -> None:
        redis = needed("redis", "redis")
        hosts = address.hosts or (("127.0.0.1", None),)
        if len(hosts) > 1:
            raise ConfigurationError(f"{address}: give one host")
        [(host, port)] = hosts
        self._is_unsafe = bool(address.number("unsafe", 0, 0))
        self._text = f"redis at {host}:{port or 6379}"
        self._has_warned = False
        self._client = redis.Redis(
            host=host,
            port=port or 6379,
            db=address.number("db", 0, 0),
            username=address.user or None,
            password=address.password or None,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            max_connections=10_000,
            # A retry of the client would double the time of a call; our callers retry.
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
            protocol=2,
            **({"ssl": True, "ssl_check_hostname": True} if address.scheme == "rediss" else {}),
        )
        kinds = redis.exceptions
        self._response_error: type[Exception] = kinds.ResponseError
        self._errors = (kinds.RedisError, OSError)
        self._forbidden = (
            kinds.AuthenticationError,
            kinds.AuthorizationError,
            kinds.NoPermissionError,
        )
        self._passing = (
            OSError,
            kinds.ConnectionError,
            kinds.TimeoutError,
            kinds.OutOfMemoryError,
            kinds.ReadOnlyError,
            kinds.ClusterDownError,
            kinds.TryAgainError,
        )

    def call(self, *command: Any) -> Any:
        try:
            return self._client.execute_command(*command)
        except self._errors as error:
            raise self._ours(error) from error

    def run(self, script: str, keys: Sequence[str], values: Sequence[Any] = ()) -> Any:
        """Run a script; it travels each time, since a server that restarts forgets it."""
        return self.call("EVAL", script, len(keys), *keys, *values)

    def refusal(self, text: str) -> Exception:
        """Return the error for the text of a server."""
        return self._ours(self._response_error(text))

    def check_settings(self, queue: str) -> None:
        if self._is_unsafe:
            return
        facts = self.call("INFO")
        version = str(facts["redis_version"])
        if int(version.partition(".")[0]) < 7:
            raise BrokerError(f"{self} is of version {version}; 7.0 or later is needed")
        policy, most = facts["maxmemory_policy"], facts["maxmemory"]
        if most and policy.startswith("allkeys"):
            raise QueueSettingsError(
                f"{self}: maxmemory-policy={policy}: with maxmemory={most}, it evicts whole queues "
                "when its memory is full; set maxmemory-policy to noeviction, or accept the loss "
                "with the option unsafe=1"
            )
        if not facts["aof_enabled"] and not self._has_warned:
            self._has_warned = True
            log.warning(
                "%s: appendonly=no: a crash of the server loses messages of %r; "
                "set appendonly to yes",
                self,
                queue,
            )

    def disconnect(self) -> None:
        """Close the connections that no call uses."""
        self._client.connection_pool.disconnect(inuse_connections=False)

    def __str__(self) -> str:
        return self._text

    def _ours(self, error: Exception) -> BrokerError:
        code, text = str(error).partition(" ")[0], f"{self}: {error}"
        if code == "NOGROUP":
            return GroupMissing(text)
        if isinstance(error, self._forbidden):
            return BrokerError(f"{self} refuses the user: {error}")
        if isinstance(error, self._passing) or code in TRANSIENT:
            self.disconnect()  # the next call may find another primary behind this name
            return BrokerUnavailable(text)
        return BrokerError(text)


class GroupMissing(BrokerError):
    """The group, or its stream, was lost."""
