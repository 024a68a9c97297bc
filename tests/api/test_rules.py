"""Rules of the filtered stream against a server of fixed answers: the exact requests."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest

import rxtweets
from rxtweets import Rule, Rules
from rxtweets.api import RuleCounts, RuleRefusal
from rxtweets.errors import RulesRefused

if TYPE_CHECKING:
    from tests.conftest import Stub

PATH = "/2/tweets/search/stream/rules"
TYPES = "https://api.x.com/2/problems/"
NONE = {"meta": {"sent": "2019-08-29T02:07:42.205Z", "result_count": 0}}
PAGE = {"max_results": "1000"}


def served(*rules: Rule) -> dict[str, Any]:
    data = [
        {"id": rule.id, "value": rule.value, **({"tag": rule.tag} if rule.tag else {})}
        for rule in rules
    ]
    return {"data": data, "meta": {"sent": "2019-08-29T02:07:42.205Z", "result_count": len(rules)}}


def created(*rules: Rule) -> tuple[int, dict[str, Any]]:
    summary = {"created": len(rules), "not_created": 0, "valid": len(rules), "invalid": 0}
    return 201, {**served(*rules), "meta": {"summary": summary}}


def deleted(number: int, left: int = 0) -> dict[str, Any]:
    return {"meta": {"sent": "…", "summary": {"deleted": number, "not_deleted": left}}}


def get(**params: str) -> tuple[Any, ...]:
    return "GET", PATH, {**PAGE, **params}, None


def post(body: Any, **params: str) -> tuple[Any, ...]:
    return "POST", PATH, params, body


@pytest.fixture
def rules(stub: Stub) -> Rules:
    return Rules(token="any", base_url=stub.url)


CATS = Rule("cat has:media", "cats with media", "1166895166390583297")
MEMES = Rule("meme has:images", "", "1166895166390583296")


# Reading


@pytest.mark.parametrize("answer", [NONE, {**NONE, "data": []}, {**NONE, "data": None}])
def test_get_returns_no_rules_when_there_are_none(stub: Stub, rules: Rules, answer: Any) -> None:
    stub.answers(answer)
    assert rules.get() == []
    assert stub.asked == [get()]


def test_get_returns_tags_and_ids(stub: Stub, rules: Rules) -> None:
    stub.answers(served(CATS, MEMES))
    assert [(rule.value, rule.tag, rule.id) for rule in rules.get()] == [
        ("cat has:media", "cats with media", "1166895166390583297"),
        ("meme has:images", "", "1166895166390583296"),
    ]


@pytest.mark.parametrize("tag", [None, ""])
def test_get_accepts_ids_as_numbers_and_null_tags(
    stub: Stub, rules: Rules, tag: str | None
) -> None:
    stub.answers({"data": [{"value": "cat", "id": 1377649934414049282, "tag": tag}]})
    (rule,) = rules.get()
    assert (rule.id, rule.tag) == ("1377649934414049282", "")


def test_get_reads_all_pages(stub: Stub, rules: Rules) -> None:
    first, second = served(CATS), served(MEMES)
    first["meta"]["next_token"] = "NEXT"
    stub.answers(first, second)
    assert rules.get() == [CATS, MEMES]
    assert stub.asked == [get(), get(pagination_token="NEXT")]


def test_get_raises_when_pages_repeat(stub: Stub, rules: Rules) -> None:
    page = {**served(CATS), "meta": {"next_token": "AGAIN"}}
    stub.answers(page, page, page)
    with pytest.raises(rxtweets.errors.ResponseError, match="repeat"):
        rules.get()
    assert len(stub.asked) == 2


def test_get_asks_for_the_ids(stub: Stub, rules: Rules) -> None:
    stub.answers(served(CATS, MEMES))
    rules.get(["1", "2"])
    assert stub.asked == [get(ids="1,2")]


def test_get_sends_a_hundred_ids_a_request(stub: Stub, rules: Rules) -> None:
    stub.answers(NONE, NONE)
    rules.get(map(str, range(101)))
    assert stub.asked == [get(ids=",".join(map(str, range(100)))), get(ids="100")]


def test_get_sends_nothing_without_ids(stub: Stub, rules: Rules) -> None:
    assert rules.get([]) == []
    assert stub.asked == []


def test_get_refuses_ids_as_one_text(rules: Rules) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="ids="):
        rules.get("123")


def test_get_raises_when_the_answer_has_only_errors(stub: Stub, rules: Rules) -> None:
    stub.answers({"errors": [{"title": "Internal", "detail": "Later", "type": TYPES + "x"}]})
    with pytest.raises(rxtweets.errors.ResponseError, match="Internal: Later"):
        rules.get()


@pytest.mark.parametrize("as_type", [str, int])
def test_counts_may_be_texts_or_numbers(stub: Stub, rules: Rules, as_type: Any) -> None:
    stub.answers({"data": {
        "cap_per_client_app": as_type(1000), "cap_per_project": as_type(1500),
        "client_app_rules_count": {"client_app_id": "7", "rule_count": as_type(2)},
        "project_rules_count": as_type(3),
    }})  # fmt: skip
    assert rules.counts() == RuleCounts(app=2, project=3, app_cap=1000, project_cap=1500)
    assert stub.asked == [("GET", f"{PATH}/counts", {}, None)]


def test_missing_caps_are_none(stub: Stub, rules: Rules) -> None:
    stub.answers({"data": {"client_app_rules_count": {"rule_count": 2}}})
    assert rules.counts() == RuleCounts(app=2, project=0, app_cap=None, project_cap=None)


# Adding


def test_add_returns_rules_with_their_ids(stub: Stub, rules: Rules) -> None:
    stub.answers(created(CATS, MEMES))
    report = rules.add(Rule("cat has:media", "cats with media"), "meme has:images")
    assert stub.asked == [
        post({"add": [
            {"value": "cat has:media", "tag": "cats with media"}, {"value": "meme has:images"},
        ]})
    ]  # fmt: skip
    assert [rule.id for rule in report.added] == [CATS.id, MEMES.id]
    assert (report.calls, report.dry_run) == (1, False)


def test_add_sends_dry_run(stub: Stub, rules: Rules) -> None:
    stub.answers(created(CATS))
    report = rules.add("cat has:media", dry_run=True)
    assert stub.asked == [post({"add": [{"value": "cat has:media"}]}, dry_run="true")]
    assert report.dry_run


def test_add_sends_a_hundred_rules_a_request(stub: Stub, rules: Rules) -> None:
    several = [Rule(f"cat{number}") for number in range(250)]
    stub.answers(*(created(*several[at : at + 100]) for at in (0, 100, 200)))
    report = rules.add(*several)
    assert [len(request.body["add"]) for request in stub.asked] == [100, 100, 50]
    assert (len(report.added), report.calls) == (250, 3)


def test_add_sends_nothing_without_rules(stub: Stub, rules: Rules) -> None:
    assert rules.add().calls == 0
    assert stub.asked == []


def test_add_strips_white_space(stub: Stub, rules: Rules) -> None:
    stub.answers(created(Rule("cat")))
    rules.add("  cat\n")
    assert stub.asked == [post({"add": [{"value": "cat"}]})]


def test_add_finds_a_mistake_before_a_request(stub: Stub, rules: Rules) -> None:
    with pytest.raises(rxtweets.errors.RuleSyntaxError) as caught:
        rules.add("cat", "cat (dog")
    assert caught.value.rule == "cat (dog"
    assert stub.asked == []


@pytest.mark.parametrize("rule", ["the", "cat ❤️"])
def test_doubtful_rule_is_sent_with_a_warning(stub: Stub, rules: Rules, rule: str) -> None:
    stub.answers(created(Rule(rule, "", "1")))
    with pytest.warns(rxtweets.api.RuleWarning, match=f"rule '{rule}': .* X"):
        rules.add(rule)
    assert stub.asked == [post({"add": [{"value": rule}]})]


def test_add_skips_the_check_without_check(stub: Stub, rules: Rules) -> None:
    stub.answers(created(Rule("cat new_operator:1")))
    assert rules.add("cat new_operator:1", check=False).calls == 1


def test_enterprise_rules_may_be_longer(stub: Stub) -> None:
    long = "x" * 2_000
    with pytest.raises(rxtweets.errors.RuleSyntaxError):
        Rules(token="any", base_url=stub.url).check(long)
    Rules(token="any", base_url=stub.url, longest=2_048).check(long)


@pytest.mark.parametrize("rule", [5, None, b"cat", Rule("cat", tag=5), Rule("\ud83d")])  # type: ignore[arg-type]  # the tested error
def test_add_refuses_values_that_are_not_rules(rules: Rules, rule: Any) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="rule"):
        rules.add(rule, check=False)


DUPLICATE = {
    "value": "cat",
    "id": "541",
    "title": "DuplicateRule",
    "type": TYPES + "duplicate-rules",
}
INVALID = {
    "value": "dog has:legs",
    "details": ["Reference to invalid field 'legs' (at position 5)"],
    "title": "UnprocessableEntity",
    "type": TYPES + "invalid-rules",
}


def refused(call: Any) -> RulesRefused:
    with pytest.raises(RulesRefused) as caught:
        call()
    return caught.value


def test_duplicate_is_refused_with_the_existing_id(stub: Stub, rules: Rules) -> None:
    summary = {"created": 0, "not_created": 1, "valid": 0, "invalid": 1}
    stub.answers({"meta": {"summary": summary}, "errors": [DUPLICATE]})
    error = refused(lambda: rules.add("cat"))
    assert error.refusals == (RuleRefusal("cat", "DuplicateRule", (), "541"),)
    assert error.report.added == ()
    assert "'cat': DuplicateRule" in str(error)


def test_add_reports_added_and_refused_rules(stub: Stub, rules: Rules) -> None:
    stub.answers((201, {**served(CATS), "errors": [INVALID]}))
    error = refused(lambda: rules.add("cat has:media", "dog has:legs", check=False))
    assert error.report.added == (CATS,)
    (refusal,) = error.refusals
    assert (refusal.value, refusal.details) == ("dog has:legs", tuple(INVALID["details"]))
    assert "Reference to invalid field" in str(error)


@pytest.mark.parametrize("status", [400, 422])
def test_refusing_status_names_the_rule(stub: Stub, rules: Rules, status: int) -> None:
    stub.answers((status, {"errors": [INVALID], "title": "Invalid Request"}))
    error = refused(lambda: rules.add("dog has:legs", check=False))
    assert error.refusals[0].value == "dog has:legs"


def test_refusal_may_have_no_details(stub: Stub, rules: Rules) -> None:
    bare = {name: each for name, each in INVALID.items() if name != "details"}
    stub.answers({"errors": [bare]})
    error = refused(lambda: rules.add("dog has:legs", check=False))
    assert error.refusals == (RuleRefusal("dog has:legs", "UnprocessableEntity"),)


def test_unmentioned_rule_is_refused(stub: Stub, rules: Rules) -> None:
    stub.answers({**served(CATS), "errors": [DUPLICATE]})
    error = refused(lambda: rules.add("cat has:media", "cat", "dog"))
    assert [refusal.value for refusal in error.refusals] == ["cat", "dog"]
    assert error.refusals[1].title == "not taken, without a reason"


def test_refusals_keep_rules_of_later_requests(stub: Stub, rules: Rules) -> None:
    several = [Rule(f"cat{number}") for number in range(101)]
    stub.answers({**served(*several[1:100]), "errors": [{**DUPLICATE, "value": "cat0"}]})
    stub.answers(created(several[100]))
    error = refused(lambda: rules.add(*several))
    assert len(error.report.added) == 100
    assert (error.report.calls, len(error.refusals)) == (2, 1)


def test_text_of_many_refusals_shows_five(stub: Stub, rules: Rules) -> None:
    values = [f"cat{number}" for number in range(8)]
    stub.answers({"errors": [{**DUPLICATE, "value": value} for value in values]})
    error = refused(lambda: rules.add(*values))
    assert len(error.refusals) == 8
    assert "X refused 8 rule(s)" in str(error)
    assert "and 3 more" in str(error)


def test_refusal_can_be_pickled(stub: Stub, rules: Rules) -> None:
    stub.answers({"errors": [DUPLICATE]})
    error = refused(lambda: rules.add("cat"))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (again.refusals, again.report) == (error.refusals, error.report)


# Deleting


@pytest.mark.parametrize(
    ("given", "body", "gone"),
    [
        ((CATS.id, MEMES), {"ids": [CATS.id, MEMES.id]}, (Rule("", id=CATS.id), MEMES)),
        (
            ("cat has:media", Rule("2024")),
            {"values": ["cat has:media", "2024"]},
            (Rule("cat has:media"), Rule("2024")),
        ),
    ],
    ids=["ids", "values"],
)
def test_delete_sends_ids_or_values(
    stub: Stub, rules: Rules, given: Any, body: Any, gone: tuple[Rule, ...]
) -> None:
    stub.answers(deleted(2))
    report = rules.delete(*given)
    assert stub.asked == [post({"delete": body})]
    assert (report.deleted, report.calls) == (gone, 1)


def test_delete_sends_ids_and_values_separately(stub: Stub, rules: Rules) -> None:
    stub.answers(deleted(1), deleted(1))
    report = rules.delete("cat", "541")
    assert stub.asked == [post({"delete": {"ids": ["541"]}}), post({"delete": {"values": ["cat"]}})]
    assert report.calls == 2


def test_delete_sends_dry_run(stub: Stub, rules: Rules) -> None:
    stub.answers(deleted(1))
    assert rules.delete("541", dry_run=True).dry_run
    assert stub.asked == [post({"delete": {"ids": ["541"]}}, dry_run="true")]


def test_delete_names_a_missing_rule(stub: Stub, rules: Rules) -> None:
    missing = {"value": "541", "title": "Rule does not exist", "type": TYPES + "resource-not-found"}
    stub.answers({**deleted(1, left=1), "errors": [missing]})
    error = refused(lambda: rules.delete("540", "541"))
    assert error.refusals == (RuleRefusal("541", "Rule does not exist"),)
    assert error.report.deleted == (Rule("", id="540"),)
    assert [rule.id for rule in error.report.deleted] == ["540"]


@pytest.mark.parametrize(
    ("parameters", "value"),
    [({"id": ["541"]}, "541"), ({"ids": "541"}, "541"), ({}, ""), ({"ids": ["1", "2"]}, "")],
)
def test_inner_problem_names_the_rule_and_the_reason(
    stub: Stub, rules: Rules, parameters: Any, value: str
) -> None:
    inner = {"parameters": parameters, "message": "Rule does not exist"}
    outer = {"title": "Invalid Request", "detail": "One or more parameters …", "errors": [inner]}
    stub.answers({**deleted(1, left=1), "errors": [outer]})
    error = refused(lambda: rules.delete("540", "541"))
    assert error.refusals == (RuleRefusal(value, "Invalid Request", ("Rule does not exist",)),)
    assert [rule.id for rule in error.report.deleted] == (["540"] if value else [])
    assert "''" not in str(error)


def test_delete_reports_rules_left_without_a_reason(stub: Stub, rules: Rules) -> None:
    stub.answers(deleted(1, left=1))
    error = refused(lambda: rules.delete("540", "541"))
    assert "1 of 2 rules were not deleted" in str(error)
    assert error.report.deleted == ()


def test_refused_deletion_is_a_response_error(stub: Stub, rules: Rules) -> None:
    stub.answers((400, {
        "errors": [{"parameters": {"delete": []}, "message": "JSON doesn't match expected schema"}],
        "title": "Invalid Request", "type": TYPES + "invalid-request",
        "detail": "One or more parameters to your request was invalid.",
    }))  # fmt: skip
    with pytest.raises(rxtweets.errors.ResponseError, match="JSON doesn't match expected schema"):
        rules.delete("541")


@pytest.mark.parametrize("rule", ["", "  ", Rule("")])
def test_delete_refuses_an_empty_rule(stub: Stub, rules: Rules, rule: Rule | str) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="id or the value"):
        rules.delete(rule)
    assert stub.asked == []


def test_delete_all_takes_two_requests(stub: Stub, rules: Rules) -> None:
    stub.answers(served(CATS, MEMES), deleted(2))
    report = rules.delete_all()
    assert stub.asked == [get(), post({}, delete_all="true")]
    assert report.deleted == (CATS, MEMES)


def test_delete_all_only_reads_without_rules(stub: Stub, rules: Rules) -> None:
    stub.answers(NONE)
    assert rules.delete_all().calls == 1
    assert stub.asked == [get()]


# Syncing


def test_sync_changes_nothing_when_equal(stub: Stub, rules: Rules) -> None:
    stub.answers(served(CATS, MEMES))
    report = rules.sync([Rule("meme has:images"), Rule("cat has:media", "cats with media")])
    assert stub.asked == [get()]
    assert (report.kept, report.added, report.deleted, report.calls) == ((CATS, MEMES), (), (), 1)


def test_sync_adds_missing_and_deletes_surplus_rules(stub: Stub, rules: Rules) -> None:
    dogs = Rule("dog", id="3")
    stub.answers(served(CATS, MEMES), deleted(1), created(dogs))
    report = rules.sync([CATS, "dog"])
    assert stub.asked == [
        get(),
        post({"delete": {"ids": [MEMES.id]}}),
        post({"add": [{"value": "dog"}]}),
    ]
    assert (report.kept, report.added, report.deleted) == ((CATS,), (dogs,), (MEMES,))
    assert report.calls == 3


def test_sync_takes_two_requests_when_rules_are_missing(stub: Stub, rules: Rules) -> None:
    stub.answers(NONE, created(CATS))
    assert rules.sync([CATS]).calls == 2
    assert stub.asked == [
        get(),
        post({"add": [{"value": "cat has:media", "tag": "cats with media"}]}),
    ]


def test_sync_replaces_a_rule_with_another_tag(stub: Stub, rules: Rules) -> None:
    renamed = Rule("cat has:media", "cats", "9")
    stub.answers(served(CATS), deleted(1), created(renamed))
    report = rules.sync([Rule("cat has:media", "cats")])
    assert stub.asked == [
        get(),
        post({"delete": {"ids": [CATS.id]}}),
        post({"add": [{"value": "cat has:media", "tag": "cats"}]}),
    ]
    assert (report.deleted, report.added) == ((CATS,), (renamed,))


def test_sync_dry_run_avoids_duplicates_of_retagged_rules(stub: Stub, rules: Rules) -> None:
    stub.answers(served(CATS), deleted(1), created(Rule("dog")))
    report = rules.sync([Rule("cat has:media", "cats"), "dog"], dry_run=True)
    assert stub.asked == [
        get(),
        post({"delete": {"ids": [CATS.id]}}, dry_run="true"),
        post({"add": [{"value": "dog"}]}, dry_run="true"),
    ]
    assert set(report.added) == {Rule("dog"), Rule("cat has:media", "cats")}


def test_sync_with_nothing_takes_two_requests(stub: Stub, rules: Rules) -> None:
    stub.answers(served(*(Rule(f"cat{number}", id=str(number)) for number in range(1_000))))
    stub.answers(deleted(1_000))
    report = rules.sync([])
    assert stub.asked == [get(), post({}, delete_all="true")]
    assert len(report.deleted) == 1_000


def test_sync_ignores_white_space(stub: Stub, rules: Rules) -> None:
    stub.answers(served(MEMES))
    assert rules.sync([" meme has:images "]).calls == 1


def test_sync_refuses_a_value_given_twice(stub: Stub, rules: Rules) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=r"twice.*'a'.*'b'"):
        rules.sync([Rule("cat", "a"), Rule("cat", "b")])
    assert stub.asked == []


def test_sync_changes_nothing_after_a_mistake(stub: Stub, rules: Rules) -> None:
    with pytest.raises(rxtweets.errors.RuleSyntaxError):
        rules.sync(["cat", "has:media"])
    assert stub.asked == []


NOT_A_LIST = ["dogs", b"dogs", bytearray(b"dogs"), Rule("dogs"), {"value": "dogs"}, None, 5]


@pytest.mark.parametrize("given", NOT_A_LIST, ids=repr)
def test_sync_refuses_values_that_are_not_lists(stub: Stub, rules: Rules, given: Any) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=r"desired=.*: give a list, such as \["):
        rules.sync(given, check=False)
    assert stub.asked == []


@pytest.mark.parametrize("given", [value for value in NOT_A_LIST if value is not None], ids=repr)
def test_filtered_stream_refuses_rules_that_are_not_lists(stub: Stub, given: Any) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=r"rules=.*: give a list, such as \["):
        rxtweets.filtered_stream(given, token="any", base_url=stub.url)
    assert stub.asked == []


def test_filtered_stream_refuses_a_value_given_twice(stub: Stub) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="twice"):
        rxtweets.filtered_stream(["cat", Rule("cat", "a")], token="any", base_url=stub.url)
    assert stub.asked == []


def test_sync_shows_one_text_as_a_list(rules: Rules) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=r"such as \['dogs has:links'\]"):
        rules.sync("dogs has:links")


@pytest.mark.parametrize("make", [list, tuple, set, iter], ids=lambda make: make.__name__)
def test_sync_takes_any_collection(stub: Stub, rules: Rules, make: Any) -> None:
    stub.answers(served(MEMES))
    assert rules.sync(make([MEMES.value])).kept == (MEMES,)


@pytest.mark.parametrize("rule", ["dogs", Rule("dogs")], ids=repr)
def test_add_takes_one_rule(stub: Stub, rules: Rules, rule: Any) -> None:
    stub.answers(created(Rule("dogs", "", "1")))
    rules.add(rule)
    assert stub.asked == [post({"add": [{"value": "dogs"}]})]


def test_add_refuses_a_list_in_place_of_a_rule(stub: Stub, rules: Rules) -> None:
    for use in (rules.add, rules.delete, rules.check):
        with pytest.raises(rxtweets.ConfigurationError, match=r"such as 'a', Rule\('b'\)"):
            use(["cats", "dogs"])  # type: ignore[arg-type]  # the tested error
    assert stub.asked == []


def test_sync_changes_nothing_when_reading_fails(stub: Stub, rules: Rules) -> None:
    stub.answers({"errors": [{"title": "Internal"}]})
    with pytest.raises(rxtweets.errors.ResponseError):
        rules.sync(["cat"])
    assert len(stub.asked) == 1


def test_sync_reports_changes_before_a_refusal(stub: Stub, rules: Rules) -> None:
    stub.answers(served(MEMES), deleted(1), {"errors": [DUPLICATE]})
    error = refused(lambda: rules.sync(["cat"]))
    assert (error.report.deleted, error.report.added, error.report.calls) == ((MEMES,), (), 3)


def test_sync_notes_changes_before_a_network_failure(stub: Stub, rules: Rules) -> None:
    stub.answers(served(MEMES), deleted(1), (None, b""))
    with pytest.raises(rxtweets.errors.ConnectionLost) as caught:
        rules.sync(["cat"])
    assert "1 rule(s) were deleted and 0 added" in caught.value.__notes__[0]


def test_add_notes_nothing_without_changes(stub: Stub, rules: Rules) -> None:
    stub.answers((503, b"no"))
    with pytest.raises(rxtweets.errors.ServerError) as caught:
        rules.add("cat")
    assert not hasattr(caught.value, "__notes__")


def test_rules_need_a_token() -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="X_BEARER_TOKEN"):
        Rules()


def test_unknown_option_is_refused_with_a_hint() -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="did you mean base_url"):
        Rules(token="any", baseurl="http://127.0.0.1")  # type: ignore[call-arg]  # the tested error


def test_id_is_ignored_in_comparisons() -> None:
    assert Rule("cat", "a", "1") == Rule("cat", "a", "2") != Rule("cat", "b", "1")
