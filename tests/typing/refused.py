"""Mistakes that type checkers find: mypy by the first code of a line, pyright by the second.

It is checked and never run. A mistake that a checker no longer finds is an unused comment, which
the strict settings report.
"""

from __future__ import annotations

import rxtweets
from rxtweets import Batch, Batcher, Message, Pipeline, Subscriber
from rxtweets import operators as ops


def of_bytes(message: Message[bytes]) -> Message[int]:
    return message.update_data(len)


def no_message(message: Message[str]) -> str:
    return message.data


def of_two_contexts(message: Message[str], first: str, second: str) -> Message[str]:
    return message.put_data(first + second)


def length(message: Message[str]) -> Message[int]:
    return message.update_data(len)


def print_texts(batch: Batch[str]) -> None:
    print([message.data.upper() for message in batch])


class Texts(Subscriber[str]):
    """Takes texts only."""


def without_batch() -> None:
    """Take nothing."""


tweets = rxtweets.sample_stream()
lengths = tweets.pipe(ops.process(length), ops.batch(20, 2.0))

rxtweets.sample_stream(tokn="any")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
rxtweets.sample_stream(buffer_size="many")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
rxtweets.sample_stream(overflow="drop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
rxtweets.sample_stream(like_fields=["id"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
rxtweets.labels_stream(tweet_fields=["lang"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
rxtweets.filtered_stream(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
rxtweets.Rules(tweet_fields=["lang"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

tweets.pipe(ops.process(of_bytes))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
tweets.pipe(ops.process(no_message))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportUnknownArgumentType]
tweets.pipe(ops.process(of_two_contexts))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportUnknownArgumentType]
lengths.pipe(ops.process(length))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
tweets.pipe(ops.deliver(print))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

lengths.subscribe(print_texts)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
lengths.subscribe(Texts())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
lengths.pipe(ops.deliver(print_texts))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
lengths.pipe(ops.deliver(Texts()))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
lengths.pipe(ops.deliver(without_batch))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

Batcher(without_batch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Batcher(Texts)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Batcher(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Pipeline(tweets, handle_message=no_message)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Pipeline(tweets, handler=length)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
