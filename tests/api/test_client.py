"""Requests with the token: retries, refusals and secrecy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import rxtweets
from rxtweets.api._client import Rest
from rxtweets.api._options import connection_options

if TYPE_CHECKING:
    from tests.conftest import Stub

SECRET = "AAAA%2Bsecret"
PATH = "/2/things"


@pytest.fixture
def client(stub: Stub) -> Rest:
    return Rest(connection_options(token=SECRET, base_url=stub.url))


def test_token_is_sent_as_bearer(stub: Stub, client: Rest) -> None:
    stub.answers({"data": 1})
    assert client.get(PATH, {"a": "b c,d"}) == {"data": 1}
    assert stub.asked == [("GET", PATH, {"a": "b c,d"}, None)]
    assert stub.authorizations == [f"Bearer {SECRET}"]


def test_path_of_base_url_is_kept(stub: Stub) -> None:
    stub.answers({})
    Rest(connection_options(token=SECRET, base_url=f"{stub.url}/mirror/")).get(PATH)
    assert stub.asked[0].path == f"/mirror{PATH}"


@pytest.mark.parametrize("passing", [(503, b"upstream connect error"), (500, {}), (None, b"")])
def test_read_is_tried_three_times(stub: Stub, client: Rest, passing: Any) -> None:
    stub.answers(passing, passing, {"data": 1})
    assert client.get(PATH) == {"data": 1}
    assert len(stub.asked) == 3


@pytest.mark.parametrize(
    ("passing", "kind"),
    [((503, b"no"), rxtweets.errors.ServerError), ((None, b""), rxtweets.errors.ConnectionLost)],
)
def test_read_raises_last_error_after_three_attempts(
    stub: Stub, client: Rest, passing: Any, kind: type[Exception]
) -> None:
    stub.answers(passing, passing, passing)
    with pytest.raises(kind):
        client.get(PATH)
    assert len(stub.asked) == 3


def test_retry_waits_as_the_server_asks(stub: Stub) -> None:
    waits: list[float] = []
    client = Rest(connection_options(token=SECRET, base_url=stub.url), waits.append)
    busy = (503, b"no", {"retry-after": "5"})
    stub.answers(busy, (503, b"no", {"retry-after": "0"}), {"data": 1})
    assert client.get(PATH) == {"data": 1}
    assert waits == [5, 0]


@pytest.mark.parametrize("asked", ["6", "120", "300000"])
def test_read_fails_when_the_server_asks_for_a_long_wait(
    stub: Stub, client: Rest, asked: str
) -> None:
    stub.answers((503, b"no", {"retry-after": asked}))
    with pytest.raises(rxtweets.errors.ServerError, match=f"Retry-After: '{asked}'"):
        client.get(PATH)
    assert len(stub.asked) == 1


@pytest.mark.parametrize("passing", [(503, b"no"), (None, b"")])
def test_change_is_tried_once(stub: Stub, client: Rest, passing: Any) -> None:
    stub.answers(passing)
    with pytest.raises(rxtweets.errors.StreamError):
        client.send("POST", PATH, {}, {"a": 1})
    assert stub.asked == [("POST", PATH, {}, {"a": 1})]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"title": "Invalid Request"}, rxtweets.errors.ResponseError),
        (401, {"title": "Unauthorized"}, rxtweets.errors.AuthenticationError),
        (403, {"reason": "client-not-enrolled"}, rxtweets.errors.AccessError),
        (404, b"", rxtweets.errors.ResponseError),
        (429, {"title": "Too Many Requests"}, rxtweets.errors.RateLimitError),
        (429, [{"code": 88}], rxtweets.errors.RateLimitError),
        (429, {"title": "UsageCapExceeded"}, rxtweets.errors.UsageCapError),
    ],
)
def test_refusal_is_a_typed_error_without_a_retry(
    stub: Stub, client: Rest, status: int, body: Any, kind: type[Exception]
) -> None:
    stub.answers((status, body, {"x-rate-limit-reset": "1700000000"}))
    with pytest.raises(kind) as caught:
        client.get(PATH)
    assert type(caught.value) is kind
    assert isinstance(caught.value, rxtweets.errors.ResponseError)
    assert caught.value.headers["x-rate-limit-reset"] == "1700000000"
    assert len(stub.asked) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"null", b'{"half":', b"\xff"])
def test_answer_raises_when_it_is_not_an_object(stub: Stub, client: Rest, body: bytes) -> None:
    stub.answers((200, body))
    with pytest.raises(rxtweets.errors.ResponseError, match=r"no JSON object; is base_url X's\?"):
        client.get(PATH)


@pytest.mark.parametrize("change", [False, True], ids=["get", "send"])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, b"<html>Hi", {"content-type": "text/html"}), r"200: <html>Hi \(text/html\).*login"),
        ((204, b""), "204: No Content, without a body"),
        ((200, b"hello", {"content-type": "text/plain"}), r"200: hello \(text/plain\)"),
        ((304, b""), "304: Not Modified.*without a target"),
    ],
    ids=["page", "204", "text", "304"],
)
def test_foreign_answer_is_quoted(
    stub: Stub, client: Rest, answer: Any, said: str, *, change: bool
) -> None:
    stub.answers(answer)
    with pytest.raises(rxtweets.errors.UnexpectedAnswerError, match=said):
        client.send("POST", PATH, {}, {}) if change else client.get(PATH)
    assert len(stub.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(stub: Stub, client: Rest, other_stub: Stub, status: int) -> None:
    stub.answers((status, b"", {"location": f"{other_stub.url}/elsewhere"}))
    with pytest.raises(
        rxtweets.errors.ResponseError, match=f"A redirect to {other_stub.url}. Redirects"
    ):
        client.get(PATH)
    assert (len(stub.asked), other_stub.asked) == (1, [])


def test_missing_server_is_a_lost_connection(stub: Stub, client: Rest) -> None:
    stub.close()
    with pytest.raises(rxtweets.errors.ConnectionLost):
        client.get(PATH)


def test_error_hides_the_token(stub: Stub, client: Rest) -> None:
    stub.answers((401, {"title": "Unauthorized"}))
    with pytest.raises(rxtweets.errors.AuthenticationError) as caught:
        client.get(PATH)
    assert SECRET not in f"{caught.value!r} {caught.value} {vars(caught.value)}"
