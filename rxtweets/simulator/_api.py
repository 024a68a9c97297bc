"""X's endpoints: what each request is answered with, a reply or a stream."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import parse_qsl

from rxtweets.api._endpoints import ENDPOINTS, Endpoint
from rxtweets.simulator import script
from rxtweets.simulator._access import Gate, Slot
from rxtweets.simulator._feed import Feed, Frames, MadeFrames, PacedFeed, Recording
from rxtweets.simulator._parameters import names_refusal
from rxtweets.simulator._ruleset import Ruleset
from rxtweets.simulator._sample_events import happenings
from rxtweets.simulator._selection import Selection
from rxtweets.simulator._timeline import LiveTape, OnDemandTape, Tape, Timeline
from rxtweets.simulator._transport import Head
from rxtweets.simulator.script import Reply, invalid_request

__all__ = ["Api", "Content", "Stream", "address_of"]

RULES = "/2/tweets/search/stream/rules"
CONNECTIONS = "/2/connections"
MANAGED = {RULES, f"{RULES}/counts", CONNECTIONS}
TOKEN = "/oauth2/token"  # noqa: S105 - a path
STREAMS = {endpoint.path: endpoint for endpoint in ENDPOINTS.values()}
MOST_BACKFILL = 5
LONGEST_REPLAY = 86_400.0

BUDGETS = {
    "sample10_stream": 100,
    "tweets_compliance_stream": 100,
    "users_compliance_stream": 100,
    "likes_compliance_stream": 100,
    "activity_stream": 450,
    "GET rules": 450,
    "POST rules": 100,
    "connections": 450,
}
"""Requests in 15 minutes ("rate limits" of X's documentation); 50 for the other streams."""

CONNECTS = 50


def address_of(head: Head) -> tuple[str, dict[str, str]]:
    """Path and parameters; any target has some, whatever it is."""
    path, _, query = re.sub("^https?://[^/?]*", "", head.target).partition("?")
    return path, dict(parse_qsl(query, keep_blank_values=True))


class Stream(NamedTuple):
    """A request was let in.

    Attributes:
        endpoint: name of the stream.
        tape: what the client is told.
        slot: what its token holds until it leaves.
        headers: of the answer, beside the usual ones.
    """

    endpoint: str
    tape: Tape
    slot: Slot
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Content:
    """What the streams are made of; see `rxtweets.simulator.serve` for each.

    Attributes:
        tweets: of all streams of tweets.
        period: after how many positions the texts of the tweets come round again; 0 if they do
            not.
        seed: of what the other streams carry.
        rate: a second.
        burst: frames that come together.
        timeline: if things happen by the clock.
        backfill: whether the account has it.
        time_scale: factor for minutes of backfill.
        strict: whether parameters and names that X was not known to have are refused.
        is_paced: whether tweets come at the pace at which they were recorded.
    """

    tweets: Frames
    period: int
    seed: int
    rate: float
    burst: int
    timeline: Timeline | None
    backfill: bool
    time_scale: float
    strict: bool = True
    is_paced: bool = False


class Api:
    """Answers requests; from any thread.

    Args:
        gate: who may come in.
        rules: of the filtered stream.
        content: of the streams.
        connects: requests for one stream in a window; ``None`` for X's numbers.
        token: that is handed out to those who ask for one.
    """

    def __init__(
        self, gate: Gate, rules: Ruleset, content: Content, connects: int | None, token: str
    ) -> None:
        self._gate = gate
        self._rules = rules
        self._content = content
        self._connects = connects
        self._token = token
        self._frames: dict[str, Frames] = {}
        self._feeds: dict[str, Feed] = {}
        for endpoint in ENDPOINTS.values():
            frames = self._frames_of(endpoint)
            self._frames[endpoint.name] = frames
            if content.timeline is None:
                feed = Feed(frames)
                if content.is_paced and isinstance(frames, Recording):
                    feed = PacedFeed(frames, content.time_scale)
                self._feeds[endpoint.name] = feed

    def answer(self, head: Head, client_ip: str, kill: Callable[[], None]) -> Reply | Stream:
        """What the request is answered with.

        Args:
            head: of the request.
            client_ip: of who asks.
            kill: ends the connection, from another thread.
        """
        path, query = address_of(head)
        if path == TOKEN:
            return self._hand_out(head)
        endpoint = STREAMS.get(path)
        if endpoint is None and path not in MANAGED and not path.startswith(CONNECTIONS + "/"):
            return script.not_found()
        token = self._gate.token_of(head.headers)
        if token is None:
            return script.unauthorized()
        if endpoint is None:
            return self._manage(head, path, query, token)
        if head.method != "GET":
            return _not_allowed()
        return self._open(endpoint, query, Slot((token, "", ""), endpoint.name, client_ip, kill))

    def _frames_of(self, endpoint: Endpoint) -> Frames:
        if endpoint.carries == "tweets":
            return self._content.tweets
        return MadeFrames(happenings(endpoint, self._content.seed))

    def _open(self, endpoint: Endpoint, query: dict[str, str], slot: Slot) -> Reply | Stream:
        name = endpoint.name
        refusal = self._gate.spend(slot.key[0], name, self._connects or BUDGETS.get(name, CONNECTS))
        if refusal is None:
            refusal = self._refusal(endpoint, query)
        if refusal is None:
            slot.key = slot.key[0], name, str(int(query.get("partition") or "0"))
            refusal = self._gate.hold(slot)
        headers = self._gate.headers(slot.key[0], name)
        if refusal is not None:
            return _with_headers(refusal, headers)
        return Stream(name, self._tape(endpoint, query), slot, headers)

    def _refusal(self, endpoint: Endpoint, query: dict[str, str]) -> Reply | None:
        """What is wrong with the query of a stream, if anything is."""
        if self._content.strict and (refusal := names_refusal(endpoint, query)) is not None:
            return refusal
        for check in (self._partition_refusal, self._backfill_refusal, self._replay_refusal):
            refusal = check(endpoint, query)
            if refusal is not None:
                return refusal
        is_empty = endpoint.name == "filtered_stream" and not len(self._rules)
        return script.no_rules() if is_empty else None

    def _partition_refusal(self, endpoint: Endpoint, query: dict[str, str]) -> Reply | None:
        given = query.get("partition", "")
        if not endpoint.partitions:
            return _unexpected("partition", given) if given else None
        if not given:
            text = "The `partition` query parameter can not be empty"
            return invalid_request("partition", "", text)
        if given.isdecimal() and 1 <= int(given) <= endpoint.partitions:
            return None
        text = f"The `partition` query parameter value [{given}] is not between 1 and "
        return invalid_request("partition", given, f"{text}{endpoint.partitions}")

    def _backfill_refusal(self, _: Endpoint, query: dict[str, str]) -> Reply | None:
        given = query.get("backfill_minutes", "0")
        if not given.isdecimal() or int(given) > MOST_BACKFILL:
            text = f"The `backfill_minutes` query parameter value [{given}] is not between 0 and 5"
            return invalid_request("backfill_minutes", given, text)
        if int(given) and not self._content.backfill:
            text = "The `backfill_minutes` query parameter is not available to this account"
            return invalid_request("backfill_minutes", given, text)
        return None

    def _replay_refusal(self, endpoint: Endpoint, query: dict[str, str]) -> Reply | None:
        names = ("start_time", "end_time")
        given: dict[str, str] = {name: query[name] for name in names if name in query}
        for name, text in given.items():
            if not endpoint.replays:
                return _unexpected(name, text)
            if self._content.timeline is None:
                return invalid_request(name, text, "This simulator keeps no past: serve(live=True)")
            if _moment(text) is None:
                shape = "it must look like 2026-01-31T12:00:00Z"
                return invalid_request(name, text, f"The `{name}` query parameter: {shape}")
        timeline = self._content.timeline
        return None if timeline is None else _bounds_refusal(given, timeline.now())

    def _tape(self, endpoint: Endpoint, query: dict[str, str]) -> Tape:
        content, timeline = self._content, self._content.timeline
        rules = self._rules if endpoint.name == "filtered_stream" else None
        partition = int(query["partition"]) if endpoint.partitions and timeline else None
        period = content.period if endpoint.carries == "tweets" else 0
        select = Selection(endpoint, partition, rules, period)
        if timeline is None:
            # Here whoever asks first gets the next frame, of several partitions too.
            feed = self._feeds[endpoint.name]
            rate = math.inf if isinstance(feed, PacedFeed) else content.rate
            return OnDemandTape(feed, rate, content.burst, select)
        now = timeline.now()
        start, end = (_moment(query.get(name, "")) for name in ("start_time", "end_time"))
        minutes = int(query.get("backfill_minutes", "0"))
        first = timeline.until(now - minutes * 60 * content.time_scale)
        until = None
        if start is not None:
            first = timeline.since(start)
        if start is not None or end is not None:
            until = timeline.until(now) if end is None or end > now else timeline.since(end)
        share = endpoint.partitions or 1
        return LiveTape(timeline, self._frames[endpoint.name], select, first, until, share)

    def _manage(self, head: Head, path: str, query: dict[str, str], token: str) -> Reply:
        """Rules and connections."""
        what = f"{head.method} rules" if path.startswith(RULES) else "connections"
        refusal = self._gate.spend(token, what, BUDGETS.get(what, CONNECTS))
        reply = refusal or self._managed(head, path, query, token)
        return _with_headers(reply, self._gate.headers(token, what))

    def _managed(self, head: Head, path: str, query: dict[str, str], token: str) -> Reply:
        verb = head.method
        if path == RULES and verb == "GET":
            return self._rules.get(query)
        if path == RULES and verb == "POST":
            return self._rules.change(query, head.body)
        if path == f"{RULES}/counts" and verb == "GET":
            return self._rules.counts()
        if path == CONNECTIONS and verb == "GET":
            return self._gate.connections(token, query)
        if path.startswith(CONNECTIONS) and verb == "DELETE":
            which = path.removeprefix(CONNECTIONS).removeprefix("/")
            return self._gate.give_up(token, which, head.body)
        return _not_allowed()

    def _hand_out(self, head: Head) -> Reply:
        """An app-only token for a key and a secret, whichever they are."""
        kind, _, given = head.headers.get("authorization", "").partition(" ")
        try:
            pair = base64.b64decode(given, validate=True) if kind == "Basic" else b""
        except ValueError:
            pair = b""
        if head.method != "POST" or b":" not in pair or b"client_credentials" not in head.body:
            reason = {"code": 99, "message": "Unable to verify your credentials"}
            return Reply(403, {"errors": [reason]})
        return Reply(200, {"token_type": "bearer", "access_token": self._token})


def _with_headers(reply: Reply, headers: Mapping[str, str]) -> Reply:
    return Reply(reply.status, reply.body, {**headers, **reply.headers})


def _not_allowed() -> Reply:
    return Reply(405, {"title": "Method Not Allowed", "type": "about:blank", "status": 405})


def _unexpected(name: str, value: str) -> Reply:
    return invalid_request(name, value, f"The query parameter [{name}] is not one of this stream")


def _bounds_refusal(given: Mapping[str, str], now: float) -> Reply | None:
    """What is wrong with the times of a replay, if anything is."""
    start, end = (_moment(given.get(name, "")) for name in ("start_time", "end_time"))
    if start is None:
        return None
    wrong = ""
    if start < now - LONGEST_REPLAY:
        wrong = "is more than 24 hours ago"
    elif start > now:
        wrong = "is in the future"
    elif end is not None and end <= start:
        wrong = "is not before `end_time`"
    text = f"The `start_time` query parameter {wrong}"
    return invalid_request("start_time", given["start_time"], text) if wrong else None


def _moment(text: str) -> float | None:
    """X's ``YYYY-MM-DDTHH:mm:ssZ`` in seconds since 1970."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
