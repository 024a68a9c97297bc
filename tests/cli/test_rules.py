"""The command ``rxtweets rules`` against a server of fixed answers."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rxtweets.cli import main

if TYPE_CHECKING:
    from tests.conftest import Stub

PATH = "/2/tweets/search/stream/rules"
GET = ("GET", PATH, {"max_results": "1000"}, None)
CATS = {"id": "1", "value": "cat has:media", "tag": "cats"}
DOGS = {"id": "2", "value": "dog"}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command: exit code, standard output, standard error."""

    def running(*arguments: str) -> tuple[int, str, str]:
        try:
            code: Any = main(["rules", *arguments])
        except SystemExit as refused:
            code = refused.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rules.txt"


def test_rules_are_listed_a_line_each(run: Run, stub: Stub) -> None:
    stub.answers({"data": [CATS, DOGS]})
    code, out, _ = run("list", "--base-url", stub.url)
    assert code == 0
    assert out == "1\tcat has:media\tcats\n2\tdog\n"
    assert stub.asked == [GET]


def test_rules_are_listed_as_json(run: Run, stub: Stub) -> None:
    stub.answers({"data": [CATS, DOGS]})
    _, out, _ = run("list", "--json", "--base-url", stub.url)
    assert [json.loads(line) for line in out.splitlines()] == [CATS, {**DOGS, "tag": ""}]


def test_control_characters_of_a_rule_are_removed(run: Run, stub: Stub) -> None:
    stub.answers({"data": [{"id": "1", "value": "cat\x1b[2J", "tag": "\x07"}]})
    _, out, _ = run("list", "--base-url", stub.url)
    assert "\x1b" not in out
    assert "\x07" not in out


def test_server_of_the_environment_is_asked_with_its_token(
    run: Run, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RXTWEETS_BASE_URL", stub.url)
    monkeypatch.setenv("X_BEARER_TOKEN", "secret")
    stub.answers({"meta": {"result_count": 0}})
    assert run("list") == (0, "", "")
    assert stub.authorizations == ["Bearer secret"]


def test_without_a_token_x_gets_no_request(run: Run) -> None:
    code, out, err = run("list")
    assert (code, out) == (2, "")
    assert "X_BEARER_TOKEN" in err


def test_rules_are_added_with_their_tags_in_order(run: Run, stub: Stub) -> None:
    stub.answers((201, {"data": [CATS, DOGS]}))
    code, out, _ = run("add", "cat has:media", "dog", "--tag", "cats", "--base-url", stub.url)
    assert code == 0
    assert [request.body for request in stub.asked] == [
        {"add": [{"value": "cat has:media", "tag": "cats"}, {"value": "dog"}]}
    ]
    assert out.splitlines() == [
        "+ cat has:media\tcats",
        "+ dog",
        "2 added, 0 deleted, 0 kept; 1 request(s)",
    ]


def test_addition_can_be_rehearsed(run: Run, stub: Stub) -> None:
    stub.answers({"data": [DOGS]})
    _, out, _ = run("add", "dog", "--dry-run", "--base-url", stub.url)
    assert stub.asked[0].params == {"dry_run": "true"}
    assert "1 would be added" in out


def test_more_tags_than_rules_are_refused(run: Run, stub: Stub) -> None:
    code, _, err = run("add", "dog", "--tag", "a", "--tag", "b", "--base-url", stub.url)
    assert (code, stub.asked) == (2, [])
    assert "2 tags for 1 rule" in err


def test_rule_with_a_leading_minus_follows_two_dashes(run: Run, stub: Stub) -> None:
    stub.answers({"data": [{"id": "3", "value": "-is:retweet cat"}]})
    code, _, _ = run("add", "--base-url", stub.url, "--", "-is:retweet cat")
    assert code == 0
    assert stub.asked[0].body == {"add": [{"value": "-is:retweet cat"}]}


def test_rules_are_deleted_by_id_and_value(run: Run, stub: Stub) -> None:
    gone = {"meta": {"summary": {"deleted": 1, "not_deleted": 0}}}
    stub.answers(gone, gone)
    code, out, _ = run("delete", "541", "dog", "--base-url", stub.url)
    assert code == 0
    assert [request.body["delete"] for request in stub.asked] == [
        {"ids": ["541"]},
        {"values": ["dog"]},
    ]
    assert out.splitlines()[:2] == ["- 541", "- dog"]


def test_rules_of_a_file_become_those_of_x(run: Run, stub: Stub, file: Path) -> None:
    file.write_text("// what we follow\n\ncat has:media\tcats\n#rxpy\n", encoding="utf-8")
    stub.answers({"data": [CATS, DOGS]}, {"meta": {"summary": {"deleted": 1, "not_deleted": 0}}})
    stub.answers({"data": [{"id": "3", "value": "#rxpy"}]})
    code, out, _ = run("sync", str(file), "--base-url", stub.url)
    assert code == 0
    assert [request.body for request in stub.asked] == [
        None, {"delete": {"ids": ["2"]}}, {"add": [{"value": "#rxpy"}]},
    ]  # fmt: skip
    assert out.splitlines() == [
        "- dog",
        "+ #rxpy",
        "1 added, 1 deleted, 1 kept; 3 request(s)",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "cat has:media\tcats\ndog",
        "\ufeffcat has:media\tcats\r\n  dog  \r\n",
        '{"value":"cat has:media","tag":"cats","id":"1"}\n\n{"value":"dog","tag":""}\n',
        '[{"value":"cat has:media","tag":"cats"}, {"value":"dog","tag":null}]',
        '[{"value":"cat has:media","tag":"cats"}, "dog"]',
    ],
)
def test_file_is_text_json_lines_or_an_array(run: Run, stub: Stub, file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="")
    stub.answers({"data": [CATS, DOGS]})
    code, out, _ = run("sync", str(file), "--base-url", stub.url)
    assert (code, out) == (0, "0 added, 0 deleted, 2 kept; 1 request(s)\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_file_may_have_any_unicode_encoding(
    run: Run, stub: Stub, file: Path, encoding: str
) -> None:
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    file.write_bytes(mark + "// 猫\r\ncat has:media\tcats\r\ndog\r".encode(encoding))
    stub.answers({"data": [CATS, DOGS]})
    code, out, _ = run("sync", str(file), "--base-url", stub.url)
    assert (code, out) == (0, "0 added, 0 deleted, 2 kept; 1 request(s)\n")


def test_file_without_rules_is_refused(run: Run, stub: Stub, file: Path) -> None:
    file.write_text("// nothing yet\n")
    code, _, err = run("sync", str(file), "--base-url", stub.url)
    assert (code, stub.asked) == (2, [])
    assert "--delete-all" in err


def test_file_without_rules_deletes_all_with_delete_all(run: Run, stub: Stub, file: Path) -> None:
    file.write_text("")
    stub.answers({"data": [CATS]}, {"meta": {"summary": {"deleted": 1, "not_deleted": 0}}})
    code, out, _ = run("sync", str(file), "--delete-all", "--base-url", stub.url)
    assert code == 0
    assert out.startswith("- cat has:media\tcats\n0 added, 1 deleted")


def test_file_without_rules_can_be_rehearsed(run: Run, stub: Stub, file: Path) -> None:
    file.write_text("")
    stub.answers({"data": [CATS]}, {"meta": {"summary": {"deleted": 1, "not_deleted": 0}}})
    _, out, _ = run("sync", str(file), "--dry-run", "--base-url", stub.url)
    assert "1 would be deleted" in out


def test_listed_rules_can_be_synced(run: Run, stub: Stub, file: Path) -> None:
    stub.answers({"data": [CATS, DOGS]}, {"data": [CATS, DOGS]})
    _, listed, _ = run("list", "--json", "--base-url", stub.url)
    file.write_text(listed, encoding="utf-8")
    _, out, _ = run("sync", str(file), "--base-url", stub.url)
    assert out.startswith("0 added, 0 deleted, 2 kept")


def test_rules_come_from_standard_input(
    run: Run, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("dog\n"))
    stub.answers({"data": [DOGS]})
    assert run("sync", "-", "--base-url", stub.url)[0] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "not JSON"),
        ('{"value":"cat"}\n{', "rules.txt:2: not JSON"),
        ('[{"tag":"cat"}]', 'rule 1: give {"value"'),
        ("[5]", "rule 1: give"),
        ('{"value":"cat","tag":["x"]}', "is no text"),
        ("cat\ndog\ncat\tcats\n", "twice"),
    ],
)
def test_invalid_file_is_refused_without_a_request(
    run: Run, stub: Stub, file: Path, text: str, words: str
) -> None:
    file.write_text(text, encoding="utf-8")
    code, _, err = run("sync", str(file), "--base-url", stub.url)
    assert (code, stub.asked) == (2, [])
    assert words in err


@pytest.mark.parametrize("content", [None, b"cat \xff", b"\xff\xfec"])
def test_file_that_cannot_be_read_is_refused(
    run: Run, stub: Stub, file: Path, content: bytes | None
) -> None:
    if content is not None:
        file.write_bytes(content)
    code, _, err = run("sync", str(file), "--base-url", stub.url)
    assert (code, stub.asked) == (2, [])
    assert "cannot be read as rules" in err


def test_mistakes_of_a_file_have_their_line_and_a_caret(run: Run, stub: Stub, file: Path) -> None:
    file.write_text("cat (dog\ncat\n猫 has:legs\n", encoding="utf-8")
    code, _, err = run("sync", str(file), "--base-url", stub.url)
    assert (code, stub.asked) == (2, [])
    lines = err.splitlines()
    assert lines[0] == f"rxtweets: {file}:1: this ( is not closed"
    assert lines[1:3] == ["  cat (dog", "      ^"]
    assert lines[3].startswith(f"rxtweets: {file}:3: has:legs is not known")
    assert lines[4:] == ["  猫 has:legs", "     ^"]


def test_check_needs_no_token_and_no_server(run: Run, file: Path) -> None:
    file.write_text("cat\ndog\n", encoding="utf-8")
    assert run("check", str(file), "cow lang:en") == (0, "3 rule(s), no mistake found\n", "")


def test_check_finds_mistakes_on_the_command_line(run: Run) -> None:
    code, out, err = run("check", "has:media", "cat fro:X")
    assert (code, out) == (2, "")
    assert "stands alone" in err
    assert err.endswith("did you mean from:?\n  cat fro:X\n      ^\n")


def test_doubtful_rule_is_accepted_with_a_warning(run: Run, file: Path) -> None:
    file.write_text("cat\nthe\n", encoding="utf-8")
    code, out, err = run("check", str(file))
    assert (code, out) == (0, "2 rule(s), no mistake found\n")
    assert err.startswith(f"rxtweets: {file}:2: rule 'the': the: X may take it for a stop word")
    assert err.count("\n") == 1


def test_mistake_in_a_long_rule_is_shown_in_context(run: Run) -> None:
    rule = " ".join(["cat"] * 100) + " has:legs " + " ".join(["dog"] * 100)
    _, _, err = run("check", rule)
    _, shown, caret = err.splitlines()
    assert shown.startswith("  …")
    assert shown.endswith("…")
    assert len(shown) < 80
    assert shown[caret.index("^") :].startswith("has:legs")


def test_enterprise_rules_may_be_longer(run: Run) -> None:
    assert run("check", "x" * 1_500)[0] == 2
    assert run("check", "x" * 1_500, "--longest", "2048")[0] == 0


def test_refusals_of_x_are_shown_with_their_position(run: Run, stub: Stub) -> None:
    reason = "Reference to invalid field 'x' (at position 5)"
    error = {"value": "dog followers_count:1", "title": "UnprocessableEntity", "details": [reason]}
    stub.answers({"data": [CATS], "errors": [error]})
    code, out, err = run("add", "cat has:media", "dog followers_count:1", "--base-url", stub.url)
    assert code == 1
    assert "1 added" in out
    assert err.splitlines() == [
        f"rxtweets: X refused 'dog followers_count:1': UnprocessableEntity ({reason})",
        "  dog followers_count:1",
        "      ^",
    ]


def test_refused_token_is_one_line(run: Run, stub: Stub) -> None:
    stub.answers((401, {"title": "Unauthorized"}))
    code, _, err = run("list", "--base-url", stub.url)
    assert code == 1
    assert err.count("\n") == 1
    assert err.startswith("rxtweets: 401: Unauthorized")


def test_changes_before_a_failure_are_reported(run: Run, stub: Stub, file: Path) -> None:
    file.write_text("cat\n", encoding="utf-8")
    stub.answers({"data": [DOGS]}, {"meta": {"summary": {"deleted": 1, "not_deleted": 0}}})
    stub.answers((503, b"no"))
    code, _, err = run("sync", str(file), "--base-url", stub.url)
    assert code == 1
    assert err.startswith("rxtweets: before that, 1 rule(s) were deleted and 0 added")
    assert "rxtweets: 503: no." in err


def test_counts_are_shown(run: Run, stub: Stub) -> None:
    answer = {"data": {"cap_per_client_app": "1000", "project_rules_count": "3",
                       "client_app_rules_count": {"rule_count": 2}}}  # fmt: skip
    stub.answers(answer, answer)
    assert run("counts", "--base-url", stub.url)[1] == "app      2 of 1000\nproject  3 of ?\n"
    assert json.loads(run("counts", "--json", "--base-url", stub.url)[1]) == {
        "app": 2, "app_cap": 1000, "project": 3, "project_cap": None,
    }  # fmt: skip


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["add"], ["sync"], ["check"]])
def test_unknown_command_is_one_line_and_exit_code_2(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1


def test_help_of_a_command_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["rules", "sync", "--help"])
    assert "Make the rules of X those of a file." in capsys.readouterr().out


def test_full_output_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def writelines(self, lines: object) -> None:  # noqa: ARG002 - as io has it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sys.stdout", Full())
    assert main(["rules", "check", "cat"]) == 1
    assert "No space left" in capsys.readouterr().err
