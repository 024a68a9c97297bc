"""Google's clients of Pub/Sub, with errors of rxtweets."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rxtweets._support.optional_imports import needed
from rxtweets.errors import BrokerError, BrokerUnavailable

__all__ = ["Missing", "PubSubClient"]

PATIENCE = 5.0
"""Seconds for the answer to a request."""


class PubSubClient:
    """Google's clients on one connection, made by the first request; errors are those of rxtweets.

    Each request has a deadline, and is sent once.
    """

    def __init__(self) -> None:
        self._pubsub = needed("google.pubsub_v1", "pubsub")
        self._errors = needed("google.api_core.exceptions", "pubsub")
        self._auth_errors = needed("google.auth.exceptions", "pubsub")
        self._grpc = needed("grpc", "pubsub")
        self._emulator = os.environ.get("PUBSUB_EMULATOR_HOST", "")
        self._lock = threading.Lock()
        self._made: tuple[Any, Any, Any] | None = None

    def publisher(self, operation: str, **parameters: Any) -> Any:
        return self._call(0, operation, parameters)

    def subscriber(self, operation: str, **parameters: Any) -> Any:
        return self._call(1, operation, parameters)

    def create(self, operation: str, parameters: dict[str, Any]) -> bool:
        """Return whether it was missing."""
        try:
            self._call(int(operation != "create_topic"), operation, parameters)
        except Exists:
            return False
        return True

    def pull(self, name: str, most: int, timeout: float) -> Sequence[Any] | None:
        """Return messages; ``None`` without an answer."""
        try:
            answer = self._call(
                1, "pull", {"subscription": name, "max_messages": most}, timeout=timeout
            )
        except NoAnswer:
            return None
        # The plain message: a field of Google's wrapper costs as much as a message.
        return list(self._pubsub.PullResponse.pb(answer).received_messages)

    def close(self) -> None:
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made[2].close()

    def _call(
        self, client: int, operation: str, parameters: dict[str, Any], timeout: float = PATIENCE
    ) -> Any:
        errors = self._errors
        try:
            method: Callable[..., Any] = getattr(self._ready()[client], operation)
            return method(**parameters, retry=None, timeout=timeout)
        except errors.AlreadyExists as error:
            raise Exists(self._text(operation, error)) from None
        except errors.NotFound as error:
            raise Missing(self._text(operation, error)) from None
        except errors.DeadlineExceeded as error:
            raise NoAnswer(self._text(operation, error)) from None
        except (
            errors.ServerError,
            errors.TooManyRequests,
            errors.Aborted,
            errors.Cancelled,
            errors.Unknown,
            self._auth_errors.TransportError,
        ) as error:
            raise BrokerUnavailable(self._text(operation, error)) from None
        except (errors.GoogleAPIError, self._auth_errors.GoogleAuthError) as error:
            raise BrokerError(self._text(operation, error)) from None
        except ValueError as error:  # of gRPC: the channel was closed meanwhile
            raise BrokerUnavailable(self._text(operation, error)) from None

    def _text(self, operation: str, error: Exception) -> str:
        host = self._emulator or "pubsub.googleapis.com:443"
        return f"Pub/Sub at {host}: {operation}: {error}"

    def _ready(self) -> tuple[Any, Any, Any]:
        with self._lock:
            if self._made is None:
                self._made = self._connected()
            return self._made

    def _connected(self) -> tuple[Any, Any, Any]:
        services = "google.pubsub_v1.services"
        publisher = needed(f"{services}.publisher.transports", "pubsub").PublisherGrpcTransport
        subscriber = needed(f"{services}.subscriber.transports", "pubsub").SubscriberGrpcTransport
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2000),  # gRPC's own is two minutes
        ]
        if self._emulator:
            channel = self._grpc.insecure_channel(self._emulator, options)
        else:
            channel = publisher.create_channel(options=options)
        return (
            self._pubsub.PublisherClient(transport=publisher(channel=channel)),
            self._pubsub.SubscriberClient(transport=subscriber(channel=channel)),
            channel,
        )


class Exists(BrokerError):
    """It exists already."""


class Missing(BrokerError):
    """The topic or the subscription does not exist."""


class NoAnswer(BrokerUnavailable):
    """There was no answer in time."""
