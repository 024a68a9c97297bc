"""The client of boto3, with errors of rxtweets."""

from __future__ import annotations

import re
import threading
import time
from typing import Any, NoReturn
from urllib.parse import urlsplit

from rxtweets._support.optional_imports import needed
from rxtweets.brokers._address import Address
from rxtweets.errors import BrokerError, BrokerUnavailable, ConfigurationError

__all__ = ["PARALLEL", "NoQueue", "SqsClient", "Stale"]

PARALLEL = 8
"""Requests of a sender or receiver at the same time."""

REGION = re.compile(r"[a-z]+(-[a-z]+)+-[0-9]+")
NO_QUEUE = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
BUSY = {"OverLimit", "RequestThrottled", "Throttling", "ThrottlingException", "SlowDown"}
STALE = {"ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight"}


class NoQueue(BrokerError):
    """The queue does not exist."""


class Stale(BrokerError):
    """A receipt is no longer valid."""


class SqsClient:
    """The client of boto3, made by the first request; its errors are those of rxtweets."""

    def __init__(self, address: Address) -> None:
        self._boto3 = needed("boto3", "sqs")
        self._botocore = needed("botocore", "sqs")
        self._options = _client_options(address)
        self._lock = threading.Lock()
        self._made: Any = None

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        errors = self._botocore.exceptions
        try:
            client = self._ready()
            try:
                return dict(getattr(client, operation)(**parameters))
            except errors.ClientError as error:
                if not _is_busy(error):
                    raise
                time.sleep(0.2)
                return dict(getattr(client, operation)(**parameters))
        except errors.ClientError as error:
            self._raise_refused(operation, error)
        except (
            errors.ConnectionError,
            errors.HTTPClientError,
            self._botocore.parsers.ResponseParserError,
        ) as error:
            raise BrokerUnavailable(f"SQS at {self._host()}: {operation}: {error}") from None
        except errors.BotoCoreError as error:
            raise BrokerError(f"SQS at {self._host()}: {operation}: {error}") from None

    def close(self) -> None:
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def _ready(self) -> Any:
        with self._lock:
            if self._made is None:
                config = needed("botocore.config", "sqs").Config(
                    connect_timeout=3,
                    read_timeout=6,
                    retries={"mode": "standard", "total_max_attempts": 1},
                    max_pool_connections=4 * PARALLEL,
                    tcp_keepalive=True,
                )
                session = self._boto3.session.Session()  # the common one is not thread-safe
                self._made = session.client("sqs", config=config, **self._options)
            return self._made

    def _host(self) -> str:
        """Return host and port without any credentials."""
        endpoint = self._made.meta.endpoint_url if self._made else self._options.get("endpoint_url")
        parts = urlsplit(endpoint or f"https://{self._options['region_name']}")
        return f"{parts.hostname}:{parts.port or (80 if parts.scheme == 'http' else 443)}"

    def _raise_refused(self, operation: str, error: Any) -> NoReturn:
        found = error.response.get("Error", {})
        code = str(found.get("Code"))
        text = f"SQS at {self._host()}: {operation}: {code}: {found.get('Message', '')}"
        if code in NO_QUEUE:
            raise NoQueue(text) from None
        if code in STALE:
            raise Stale(text) from None
        if _is_busy(error) or "Deleted" in code:
            raise BrokerUnavailable(text) from None
        raise BrokerError(text) from None


def _is_busy(error: Any) -> bool:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or error.response.get("Error", {}).get("Code") in BUSY


def _client_options(address: Address) -> dict[str, Any]:
    if address.user or address.password:
        raise ConfigurationError(f"{address}: give credentials in the environment, as for boto3")
    if len(address.hosts) != 1:
        raise ConfigurationError(f"{address}: give a region, as sqs://eu-west-1/tweets")
    [(host, port)] = address.hosts
    if port is None:
        if not REGION.fullmatch(host) or "region" in address.options:
            raise ConfigurationError(
                f"{address}: give a region, as sqs://eu-west-1/tweets, or host and port of a test "
                "server, as sqs://127.0.0.1:15000/tweets?region=us-east-1"
            )
        return {"region_name": host}
    shown = f"[{host}]" if ":" in host else host
    return {
        "endpoint_url": f"http://{shown}:{port}",
        "region_name": address.options.get("region", "us-east-1"),
    }
