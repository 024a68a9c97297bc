"""X's endpoints: answers each request with a reply or a stream."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import parse_qsl

from rxtweets.api._endpoints import ENDPOINTS, KNOWN, Endpoint
from rxtweets.simulator import script
from rxtweets.simulator._access import Access, Slot
from rxtweets.simulator._frames import FrameSource, GeneratedFrames
from rxtweets.simulator._ruleset import Ruleset, Selection
from rxtweets.simulator._sample_events import SampleEvents
from rxtweets.simulator._timeline import Cursor, LiveCursor, OnDemandCursor, Timeline
from rxtweets.simulator._transport import Head
from rxtweets.simulator.script import Reply

__all__ = ["Api", "Content", "OpenedStream", "address_of"]

RULES = "/2/tweets/search/stream/rules"
CONNECTIONS = "/2/connections"
TOKEN = "/oauth2/token"  # noqa: S105 - a path
STREAMS = {endpoint.path: endpoint for endpoint in ENDPOINTS.values()}
MOST_BACKFILL = 5
LONGEST_REPLAY = 86_400.0

RATE_LIMIT = 50
RATE_LIMITS = {
    "sample10_stream": 100,
    "tweets_compliance_stream": 100,
    "users_compliance_stream": 100,
    "likes_compliance_stream": 100,
    "activity_stream": 450,
    "GET rules": 450,
    "POST rules": 100,
    "connections": 450,
}
"""Requests in 15 minutes, if not `RATE_LIMIT`: https://docs.x.com/x-api/fundamentals/rate-limits"""

OF_ALL = {"backfill_minutes", "partition", "start_time", "end_time"}
"""Parameters whose own checks refuse them where a stream does not take them."""

NAMED = {
    option.replace("_fields", ".fields"): option for option in KNOWN if option != "like_fields"
} | {"like_with_tweet_author.fields": "like_fields"}
"""Keys of `KNOWN` by X's parameters."""

NOT_TAKEN = {"tweets": {"like_fields"}, "likes": {"place_fields", "poll_fields"}}
"""Keys of `KNOWN`, by the content of a stream; other streams take none of them."""


def address_of(head: Head) -> tuple[str, dict[str, str]]:
    """Split the target of a request into path and parameters; any text is a target."""
    path, _, query = re.sub("^https?://[^/?]*", "", head.target).partition("?")
    return path, dict(parse_qsl(query, keep_blank_values=True))


class OpenedStream(NamedTuple):
    """The answer to an accepted request for a stream.

    Attributes:
        cursor: the frames.
        slot: the connection, until it is released.
        headers: of the answer, beside the usual ones.
    """

    cursor: Cursor
    slot: Slot
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Content:
    """The content of the streams; see `rxtweets.simulator.serve`.

    Attributes:
        tweets: makes the source of one stream of tweets.
        period: positions after which the texts of tweets repeat; 0 if they do not.
        seed: of the other streams.
        timeline: of a live server.
    """

    tweets: Callable[[], FrameSource]
    period: int
    seed: int
    rate: float
    burst: int
    timeline: Timeline | None
    backfill: bool
    time_scale: float
    strict: bool = True
    is_paced: bool = False


class _Refused(Exception):
    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class _Query(NamedTuple):
    """The checked parameters of a request for a stream; times in seconds since 1970."""

    partition: int
    backfill_minutes: int
    start: float | None
    end: float | None


class Api:
    """Answers requests; from any thread.

    Args:
        access: tokens and limits.
        rules: of the filtered stream.
        content: of the streams.
        connects: requests for one stream in a window; ``None`` for X's numbers.
        token: the answer to a request for a token.
    """

    def __init__(
        self, access: Access, rules: Ruleset, content: Content, connects: int | None, token: str
    ) -> None:
        self._access = access
        self._rules = rules
        self._content = content
        self._connects = connects
        self._token = token
        self._sources: dict[str, FrameSource] = {
            endpoint.name: content.tweets()
            if endpoint.carries == "tweets"
            else GeneratedFrames(SampleEvents(endpoint.name, content.seed))
            for endpoint in ENDPOINTS.values()
        }

    def answer(self, head: Head, client_ip: str, kill: Callable[[], None]) -> Reply | OpenedStream:
        """Answer a request.

        Args:
            head: of the request.
            client_ip: address of the client.
            kill: ends the connection, from another thread.
        """
        path, query = address_of(head)
        if path == TOKEN:
            return self._grant_token(head)
        endpoint = STREAMS.get(path)
        is_managed = path in {RULES, f"{RULES}/counts", CONNECTIONS}
        if endpoint is None and not is_managed and not path.startswith(f"{CONNECTIONS}/"):
            return script.not_found()
        token = self._access.token_of(head.headers)
        if token is None:
            return script.unauthorized()
        if endpoint is None:
            return self._manage(head, path, query, token)
        if head.method != "GET":
            return script.not_allowed()
        return self._open(endpoint, query, Slot((token, "", ""), endpoint.name, client_ip, kill))

    def _open(
        self, endpoint: Endpoint, parameters: dict[str, str], slot: Slot
    ) -> Reply | OpenedStream:
        name, token = endpoint.name, slot.key[0]
        limit = self._connects or RATE_LIMITS.get(name, RATE_LIMIT)
        refusal = self._access.spend(token, name, limit)
        if refusal is None:
            try:
                query = self._parse(endpoint, parameters)
            except _Refused as refused:
                refusal = refused.reply
            else:
                slot.key = token, name, str(query.partition)
                refusal = self._access.hold(slot)
        headers = self._access.headers(token, name)
        if refusal is not None:
            return _with_headers(refusal, headers)
        return OpenedStream(self._cursor(endpoint, query), slot, headers)

    def _parse(self, endpoint: Endpoint, query: dict[str, str]) -> _Query:
        if self._content.strict:
            _check_names(endpoint, query)
        partition = _partition(endpoint, query)
        minutes = self._backfill_minutes(query)
        start, end = self._bounds(endpoint, query)
        if endpoint.name == "filtered_stream" and not len(self._rules):
            raise _Refused(script.no_rules())
        return _Query(partition, minutes, start, end)

    def _backfill_minutes(self, query: dict[str, str]) -> int:
        name = "backfill_minutes"
        given = query.get(name, "0")
        if not given.isdecimal() or int(given) > MOST_BACKFILL:
            raise _invalid(name, given, f"value [{given}] is not between 0 and {MOST_BACKFILL}")
        if int(given) and not self._content.backfill:
            raise _invalid(name, given, "is not available to this account")
        return int(given)

    def _bounds(
        self, endpoint: Endpoint, query: dict[str, str]
    ) -> tuple[float | None, float | None]:
        start = self._moment("start_time", endpoint, query)
        end = self._moment("end_time", endpoint, query)
        timeline = self._content.timeline
        if start is None or timeline is None:
            return start, end
        fault = ""
        if start < timeline.now() - LONGEST_REPLAY:
            fault = "is more than 24 hours ago"
        elif start > timeline.now():
            fault = "is in the future"
        elif end is not None and end <= start:
            fault = "is not before `end_time`"
        if fault:
            raise _invalid("start_time", query["start_time"], fault)
        return start, end

    def _moment(self, name: str, endpoint: Endpoint, query: dict[str, str]) -> float | None:
        text = query.get(name)
        if text is None:
            return None
        if not endpoint.replays:
            raise _unexpected(name, text)
        if self._content.timeline is None:
            message = "This simulator keeps no past: serve(live=True)"
            raise _Refused(script.invalid_request(name, text, message))
        try:
            moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise _invalid(name, text, "must look like 2026-01-31T12:00:00Z") from None
        return moment.timestamp()

    def _cursor(self, endpoint: Endpoint, query: _Query) -> Cursor:
        content, timeline = self._content, self._content.timeline
        source = self._sources[endpoint.name]
        is_filtered, has_tweets = endpoint.name == "filtered_stream", endpoint.carries == "tweets"
        select = Selection(
            endpoint,
            # On demand, each frame goes to the connection that asks first, of any partition.
            query.partition if timeline else 0,
            self._rules if is_filtered else None,
            content.period if has_tweets else 0,
        )
        if timeline is None:
            rate = math.inf if content.is_paced and has_tweets else content.rate
            return OnDemandCursor(source, rate, content.burst, select)
        now = timeline.now()
        first = timeline.position_after(now - query.backfill_minutes * 60 * content.time_scale)
        last = None
        if query.start is not None:
            first = timeline.position_at(query.start)
        if query.end is not None and query.end <= now:
            last = timeline.position_at(query.end)
        elif query.start is not None or query.end is not None:
            last = timeline.position_after(now)
        return LiveCursor(timeline, source, select, first, last, endpoint.partitions or 1)

    def _manage(self, head: Head, path: str, query: dict[str, str], token: str) -> Reply:
        resource = f"{head.method} rules" if path.startswith(RULES) else "connections"
        limit = RATE_LIMITS.get(resource, RATE_LIMIT)
        reply = self._access.spend(token, resource, limit)
        if reply is None:
            reply = self._managed(head, path, query, token)
        return _with_headers(reply, self._access.headers(token, resource))

    def _managed(self, head: Head, path: str, query: dict[str, str], token: str) -> Reply:
        route = head.method, path
        if route == ("GET", RULES):
            return self._rules.get(query)
        if route == ("POST", RULES):
            return self._rules.change(query, head.body)
        if route == ("GET", f"{RULES}/counts"):
            return self._rules.counts()
        if route == ("GET", CONNECTIONS):
            return self._access.connections(token, query)
        if head.method == "DELETE" and path.startswith(CONNECTIONS):
            which = path.removeprefix(CONNECTIONS).removeprefix("/")
            return self._access.kill(token, which, head.body)
        return script.not_allowed()

    def _grant_token(self, head: Head) -> Reply:
        kind, _, given = head.headers.get("authorization", "").partition(" ")
        try:
            pair = base64.b64decode(given, validate=True) if kind == "Basic" else b""
        except ValueError:
            pair = b""
        if head.method != "POST" or b":" not in pair or b"client_credentials" not in head.body:
            reason = {"code": 99, "message": "Unable to verify your credentials"}
            return Reply(403, {"errors": [reason]})
        return Reply(200, {"token_type": "bearer", "access_token": self._token})


def _check_names(endpoint: Endpoint, query: Mapping[str, str]) -> None:
    not_taken = NOT_TAKEN.get(endpoint.carries, set(KNOWN))
    lists = {name: option for name, option in NAMED.items() if option not in not_taken}
    for name, given in query.items():
        if name in OF_ALL:
            continue
        if name not in lists:
            choice = ",".join(sorted(OF_ALL | lists.keys()))
            message = f"The query parameter [{name}] is not one of [{choice}]"
            raise _Refused(script.invalid_request(name, given, message))
        known = KNOWN[lists[name]]
        for value in given.split(","):
            if value not in known:
                choice = ",".join(sorted(known))
                raise _invalid(name, value, f"value [{value}] is not one of [{choice}]")


def _partition(endpoint: Endpoint, query: Mapping[str, str]) -> int:
    """The partition from 1, of an undivided stream 0."""
    given = query.get("partition", "")
    if not endpoint.partitions:
        if given:
            raise _unexpected("partition", given)
        return 0
    if not given:
        raise _invalid("partition", "", "can not be empty")
    if not (given.isdecimal() and 1 <= int(given) <= endpoint.partitions):
        fault = f"value [{given}] is not between 1 and {endpoint.partitions}"
        raise _invalid("partition", given, fault)
    return int(given)


def _invalid(name: str, value: str, fault: str) -> _Refused:
    message = f"The `{name}` query parameter {fault}"
    return _Refused(script.invalid_request(name, value, message))


def _unexpected(name: str, value: str) -> _Refused:
    message = f"The query parameter [{name}] is not one of this stream"
    return _Refused(script.invalid_request(name, value, message))


def _with_headers(reply: Reply, headers: Mapping[str, str]) -> Reply:
    return Reply(reply.status, reply.body, {**headers, **reply.headers})
