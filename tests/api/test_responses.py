from __future__ import annotations

from typing import Any

import orjson
import pytest

import rxtweets
from rxtweets.api._options import Token
from rxtweets.api._responses import error_in_stream, error_of_response, unexpected_answer
from rxtweets.simulator import script

BLANK_429 = {"title": "Too Many Requests", "detail": "Too Many Requests", "type": "about:blank"}
PROBLEMS = ["https://api.twitter.com/2/problems/", "https://api.x.com/2/problems/"]
TWITTER, X = PROBLEMS


def error(status: int, body: Any = b"", **headers: str) -> rxtweets.errors.ResponseError:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return error_of_response(status, headers, raw)


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable", "advice"),
    [
        (
            401,
            {"title": "Unauthorized"},
            rxtweets.errors.AuthenticationError,
            False,
            "X_BEARER_TOKEN",
        ),
        (403, script.forbidden().body, rxtweets.errors.AccessError, False, "developer portal"),
        (404, b"", rxtweets.errors.ResponseError, False, "base_url"),
        (
            400,
            {"errors": [{"message": "bad partition"}]},
            rxtweets.errors.ResponseError,
            False,
            "options",
        ),
        (307, b"", rxtweets.errors.UnexpectedAnswerError, False, "base_url"),
        (204, b"", rxtweets.errors.UnexpectedAnswerError, False, "No Content, without a body"),
        (206, b"half", rxtweets.errors.UnexpectedAnswerError, False, "base_url"),
        (304, b"", rxtweets.errors.UnexpectedAnswerError, False, "without a target"),
        (101, b"", rxtweets.errors.UnexpectedAnswerError, False, "Switching Protocols"),
        (302, {"message": "moved"}, rxtweets.errors.UnexpectedAnswerError, False, "base_url"),
        (511, b"", rxtweets.errors.UnexpectedAnswerError, False, "log in"),
        (418, b"", rxtweets.errors.ResponseError, False, "without a body. The request itself"),
        (499, b"", rxtweets.errors.ResponseError, False, "an answer without a body"),
        (599, b"", rxtweets.errors.ServerError, True, "an answer without a body"),
        (409, script.no_rules().body, rxtweets.errors.RulesError, False, "Add a rule"),
        (429, BLANK_429, rxtweets.errors.RateLimitError, True, "window"),
        (
            429,
            {"errors": [{"code": 88, "message": "x"}]},
            rxtweets.errors.RateLimitError,
            True,
            "window",
        ),
        (420, b"Enhance your calm", rxtweets.errors.RateLimitError, True, "window"),
        (
            429,
            script.too_many_connections().body,
            rxtweets.errors.ConnectionLimitError,
            True,
            "in use",
        ),
        (429, script.usage_capped().body, rxtweets.errors.UsageCapError, False, "next period"),
        (429, {"type": X + "usage-capped"}, rxtweets.errors.UsageCapError, False, "next period"),
        (
            429,
            {"type": TWITTER + "usage-capped"},
            rxtweets.errors.UsageCapError,
            False,
            "next period",
        ),
        (429, script.provisioning().body, rxtweets.errors.ProvisioningError, True, "minute"),
        (
            403,
            {"detail": "… being provisioned …"},
            rxtweets.errors.ProvisioningError,
            True,
            "minute",
        ),
        (500, b"", rxtweets.errors.ServerError, True, "trying again"),
        (
            503,
            b"upstream connect error",
            rxtweets.errors.ServerError,
            True,
            "upstream connect error",
        ),
        (504, b"\xff\xfe", rxtweets.errors.ServerError, True, "trying again"),
    ],
)
def test_answer_becomes_a_typed_error_with_advice(
    status: int, body: Any, kind: type[rxtweets.errors.ResponseError], retryable: bool, advice: str
) -> None:
    made = error(status, body)
    assert type(made) is kind
    assert made.retryable is retryable
    assert made.status == status
    assert str(made).startswith(f"{status}: ")
    assert advice in str(made)


@pytest.mark.parametrize("body", [b"", b"[]", b"3", b'{"errors":[]}', b'{"errors":[7]}', b"<html>"])
def test_odd_body_is_a_server_error(body: bytes) -> None:
    assert isinstance(error(503, body), rxtweets.errors.ServerError)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://login.example.net/a?token=hush#hush", "https://login.example.net."),
        ("http://me:hush@login.example.net:8080/hush", "http://login.example.net:8080."),
        ("//login.example.net/hush", "//login.example.net."),
        ("https://[::1]:8080/hush", "https://[::1]:8080."),
        ("/hush", "the same host."),
        ("?hush", "the same host."),
        ("https://[hush", "a target that is no URL."),
        ("https://login.example.net:hush/", "a target that is no URL."),
        ("https://evil\x1b\x07.example/", "https://evil\\x1b\\x07.example."),
        (f"https://{'a' * 5_000}.example/", "…."),
    ],
)
def test_redirect_target_is_shown_without_its_path(location: str, target: str) -> None:
    made = error(302, b"", location=location)
    assert f"A redirect to {target}" in str(made) or (target == "…." and target in str(made))
    assert "hush" not in str(made)
    assert "Redirects are not followed" in str(made)
    assert len(str(made)) < 500
    assert str(made).isprintable()


@pytest.mark.parametrize("kind", ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml"])
def test_web_page_is_explained_as_a_login_page(kind: str) -> None:
    made = error(200, b"<html>\n<title>Hotel Wi-Fi</title>", **{"content-type": kind})
    assert type(made) is rxtweets.errors.UnexpectedAnswerError
    assert str(made).startswith(f"200: <html> <title>Hotel Wi-Fi</title> ({kind}). ")
    assert "login page of this network" in str(made)


def test_refusal_with_a_web_page_names_a_proxy() -> None:
    made = error(403, b"<h1>Blocked</h1>", **{"content-type": "text/html"})
    assert type(made) is rxtweets.errors.AccessError
    assert "a proxy or a firewall may have answered" in str(made)


@pytest.mark.parametrize(
    "body",
    [
        b"\x1b[2J\x00\x07 wiped \xe2\x80\xae gnp.exe \x9b" + b"x" * 9_000,
        {"title": "a\x1b[2J\u202e", "detail": "b\n" * 9_000},
        {"errors": [{"message": "\x1b" * 9_000}]},
    ],
    ids=["text", "problem", "part"],
)
@pytest.mark.parametrize("status", [200, 204, 302, 403, 503])
def test_text_of_a_server_is_shortened_and_escaped(status: int, body: Any) -> None:
    headers = {"content-type": "text/html\x1b[2J" + "y" * 9_000, "retry-after": "\x1b[2J"}
    made = error(status, body, **headers)
    assert str(made).isprintable()
    assert len(str(made)) < 3_000


def test_error_keeps_body_and_headers() -> None:
    made = error(429, BLANK_429, **{"x-rate-limit-reset": "17"})
    assert made.headers == {"x-rate-limit-reset": "17"}
    assert orjson.loads(made.body) == BLANK_429


def test_repeated_text_is_shown_once() -> None:
    assert str(error(429, BLANK_429)).count("Too Many Requests") == 1


def test_provisioning_is_recognised_in_plain_text() -> None:
    body = b"Your subscription change is currently being provisioned, please try again in a minute."
    assert type(error_of_response(403, {}, body)) is rxtweets.errors.ProvisioningError


@pytest.mark.parametrize("prefix", PROBLEMS)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"title": "UsageCapExceeded"}, rxtweets.errors.UsageCapError),
        ({"connection_issue": "ProvisioningSubscription"}, rxtweets.errors.ProvisioningError),
        (
            {"errors": [{"connection_issue": "TooManyConnections"}]},
            rxtweets.errors.ConnectionLimitError,
        ),
    ],
)
def test_one_name_of_a_429_is_sufficient(
    prefix: str, body: dict[str, Any], kind: type[rxtweets.errors.ResponseError]
) -> None:
    raw = orjson.dumps({"type": prefix + "streaming-connection"} | body)
    assert type(error_of_response(429, {}, raw)) is kind


def test_title_of_a_problem_precedes_its_parts() -> None:
    body = {"title": "Invalid Request", "errors": [{"message": "no partition"}]}
    assert "Invalid Request" in str(error_of_response(400, {}, orjson.dumps(body)))


def test_older_problem_is_shown_by_its_message() -> None:
    made = error(429, {"errors": [{"code": 88, "message": "Rate limit exceeded"}]})
    assert str(made).startswith("429: Rate limit exceeded. ")


def test_text_ends_with_one_full_stop() -> None:
    assert str(error(503, {"detail": "Try later."})).startswith("503: Try later. The")


def test_long_body_is_shortened_in_the_text_only() -> None:
    made = error(503, b"x" * 5000)
    assert str(made).count("x") == 200
    assert made.body == "x" * 5000


def test_first_part_completes_a_problem() -> None:
    body = {"title": "x", "errors": [{"connection_issue": "TooManyConnections"}]}
    assert type(error(429, body)) is rxtweets.errors.ConnectionLimitError


def test_plain_text_becomes_one_sentence() -> None:
    text = str(error(503, b"<html>\r\nTry again later.\r\n"))
    assert text.startswith("503: <html> Try again later. The server failed")


@pytest.mark.parametrize("issue", [[], {}, 5, None, "NewIssueOfTomorrow"])
def test_unknown_issue_of_a_429_is_a_rate_limit(issue: Any) -> None:
    assert type(error(429, {"connection_issue": issue})) is rxtweets.errors.RateLimitError


@pytest.mark.parametrize("body", [[{"code": 88, "message": "Rate limit exceeded"}], [], "x", 7])
def test_429_without_an_object_is_a_rate_limit(body: Any) -> None:
    assert type(error(429, body)) is rxtweets.errors.RateLimitError


def test_wrong_kind_of_token_is_an_authentication_error() -> None:
    made = error(403, {"type": TWITTER + "unsupported-authentication", "title": "Unsupported"})
    assert type(made) is rxtweets.errors.AuthenticationError
    assert "app-only" in str(made)


def test_reason_of_an_invalid_parameter_is_shown() -> None:
    body = {
        "errors": [{"parameters": {"partition": []}, "message": "`partition` can not be empty"}],
        "title": "Invalid Request",
        "detail": "One or more parameters to your request was invalid.",
    }
    assert str(error(400, body)).startswith(
        "400: Invalid Request: One or more parameters to your request was invalid: "
        "`partition` can not be empty. "
    )


def test_text_of_a_line_is_shortened_and_escaped() -> None:
    for problem in (
        {"title": "\x1b[2J" * 999, "disconnect_type": "\x1b[2J" * 999},
        {"type": X + "usage-capped", "detail": "\x1b[2J" * 999},
    ):
        text = str(in_stream(**problem))
        assert text.isprintable()
        assert len(text) < 4_000


def in_stream(**problem: Any) -> Exception:
    return error_in_stream(problem, {"x-rate-limit-reset": "17"})


@pytest.mark.parametrize("prefix", PROBLEMS)
@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("OperationalDisconnect", "operational-disconnect"),
        ("UpstreamOperationalDisconnect", "operational-disconnect"),
        ("ForceDisconnect", "client-disconnected"),
        ("UpstreamUncleanDisconnect", "operational-disconnect"),
        ("SlowReader", "client-disconnected"),
        ("InternalError", "operational-disconnect"),
        ("ClientApplicationStateDegraded", "operational-disconnect"),
        ("InvalidRules", "operational-disconnect"),
        ("ReasonOfTomorrow", "problem-of-tomorrow"),
    ],
)
def test_announced_disconnect_has_its_reason(prefix: str, kind: str, last: str) -> None:
    made = in_stream(title=last, disconnect_type=kind, detail="It is over.", type=prefix + last)
    assert type(made) is rxtweets.errors.ServerDisconnect
    assert made.disconnect_type == kind
    assert "It is over" in str(made)
    assert made.retryable


@pytest.mark.parametrize(
    ("problem", "kind", "retryable"),
    [
        ({"connection_issue": "TooManyConnections"}, rxtweets.errors.ConnectionLimitError, True),
        ({"connection_issue": "ProvisioningSubscription"}, rxtweets.errors.ProvisioningError, True),
        ({"connection_issue": "RuleConfigurationIssue"}, rxtweets.errors.RulesError, False),
        ({"connection_issue": "RulesInvalidIssue"}, rxtweets.errors.RulesError, False),
        ({"connection_issue": "IssueOfTomorrow"}, rxtweets.errors.RateLimitError, True),
        ({"type": X + "usage-capped"}, rxtweets.errors.UsageCapError, False),
        ({"type": TWITTER + "rate-limit-exceeded"}, rxtweets.errors.RateLimitError, True),
        ({"type": X + "client-forbidden"}, rxtweets.errors.AccessError, False),
        ({"type": X + "unsupported-authentication"}, rxtweets.errors.AuthenticationError, False),
        ({"type": "about:blank", "status": 503}, rxtweets.errors.ServerError, True),
        ({"type": "about:blank", "status": 401}, rxtweets.errors.AuthenticationError, False),
    ],
)
def test_problem_in_a_line_is_the_error_of_its_status(
    problem: dict[str, Any], kind: type[rxtweets.errors.ResponseError], retryable: bool
) -> None:
    made = in_stream(title="The title", **problem)
    assert type(made) is kind
    assert isinstance(made, rxtweets.errors.ResponseError)
    assert made.retryable is retryable
    assert (made.status, made.headers) == (200, {"x-rate-limit-reset": "17"})
    assert "sent this in the stream" in str(made)
    assert orjson.loads(made.body) == {"title": "The title", **problem}


def test_problem_in_a_line_drops_old_times() -> None:
    headers = {"date": "Tue, 14 Nov 2023 22:13:20 GMT", "retry-after": "9", "server": "x"}
    made = error_in_stream({"type": X + "rate-limit-exceeded"}, headers)
    assert isinstance(made, rxtweets.errors.RateLimitError)
    assert made.headers == {"server": "x"}


def test_retry_after_is_shown() -> None:
    assert "(Retry-After: '120')" in str(error(503, b"", **{"retry-after": "120"}))
    assert "\x1b" not in str(error(503, b"", **{"retry-after": "\x1b[2J" + "9" * 999}))
    assert len(str(error(503, b"", **{"retry-after": "9" * 999}))) < 250


@pytest.mark.parametrize("status", [True, 0, 200, "503", None, []])
def test_invalid_status_leaves_a_disconnect(status: Any) -> None:
    made = in_stream(title="t", disconnect_type="SlowReader", status=status, connection_issue=[])
    assert type(made) is rxtweets.errors.ServerDisconnect


def test_unexpected_answer_is_masked_before_it_is_cut() -> None:
    token = Token("secret-of-the-app-and-more")
    error = unexpected_answer(200, {}, b"a" * 189 + b" secret-of-the-app-and-more", "Look.")
    assert "secret" not in str(error)
    assert len(unexpected_answer(200, {}, b"a" * 2**20, "Look.").body) == 65_536
    del token
