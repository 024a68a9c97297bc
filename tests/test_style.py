"""Names of tests, and the examples of docstrings, which run."""

from __future__ import annotations

import ast
import asyncio
import builtins
import inspect
import re
import shutil
import textwrap
import types
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import reactivex
import tenacity
from reactivex import operators as stock
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

import rxtweets
from rxtweets import display, subscribers, testing
from rxtweets import operators as ops
from rxtweets.display import draw_topology, snapshot_of
from rxtweets.instrumentation.opentelemetry import instrument
from rxtweets.instrumentation.prometheus import serve_metrics
from rxtweets.simulator import script

PACKAGE = Path(rxtweets.__file__).parent
TESTS = Path(__file__).parent
RECORDING = TESTS.parent / "notebooks" / "sample.jsonl.gz"
LONGEST_NAME = 60
EXAMPLE = re.compile(r"^( *)(?:\S.*)?::\n\n((?:\1 +\S.*\n|\n)+)", re.MULTILINE)
AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class Example(NamedTuple):
    place: str
    code: types.CodeType


def documented(tree: ast.Module) -> Iterator[tuple[str, str]]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "module"), text + "\n"


def examples() -> Iterator[Example]:
    """The examples that are Python; marble diagrams and file formats are not."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, text in documented(ast.parse(path.read_text(encoding="utf-8"))):
            for found in EXAMPLE.finditer(text):
                place = f"{path.relative_to(PACKAGE).with_suffix('')}:{name}"
                try:
                    code = compile(textwrap.dedent(found[2]), place, "exec", flags=AWAIT)
                except SyntaxError:
                    continue
                yield Example(place, code)


EXAMPLES = list(examples())


def surroundings(stack: ExitStack) -> dict[str, Any]:
    """The names that examples use and do not define."""
    tweets = rxtweets.sample_stream()
    queue = rxtweets.brokers.connect("memory:examples")
    queue.ensure()

    def handler(message: rxtweets.Message[Any]) -> rxtweets.Message[Any]:
        return message

    def post(_batch: Any) -> None:
        """Send a batch."""

    async def store(_batch: Any) -> None:
        """Store a batch."""

    async def enrich(message: rxtweets.Message[Any], _session: Any) -> rxtweets.Message[Any]:
        return message

    names = {name: getattr(rxtweets, name) for name in rxtweets.__all__}
    names |= {name: getattr(subscribers, name) for name in subscribers.__all__}
    names |= {name: getattr(script, name) for name in script.__all__}
    names |= {name: getattr(testing, name) for name in testing.__all__}
    return names | {
        "rxtweets": rxtweets,
        "reactivex": reactivex,
        "tenacity": tenacity,
        "ops": ops,
        "stock": stock,
        "draw": display,
        "TestScheduler": TestScheduler,
        "serve": lambda **options: stack.enter_context(rxtweets.simulator.serve(**options)),
        "instrument": instrument,
        "serve_metrics": serve_metrics,
        "draw_topology": draw_topology,
        "snapshot_of": snapshot_of,
        "tweets": tweets,
        "stream": tweets,
        "batches": tweets.pipe(ops.batch(20, 0.1)),
        "a": tweets,
        "b": tweets,
        "handler": handler,
        "upcase": lambda message: message.update_data(str.upper),
        "post": post,
        "post_to_chat": post,
        "database": post,
        "store": store,
        "subscriber": rxtweets.Subscriber(),
        "counts": Counter("abc"),
        "languages": ["en", "ja", "en"],
        "bars": display.bars,
        "Counter": Counter,
        "Subject": Subject,
        "enrich": enrich,
        "session": None,
        "pipeline": rxtweets.Pipeline(tweets, handle_message=handler),
        "brokers": rxtweets.brokers,
        "queue": queue,
        "sqs": types.SimpleNamespace(receive_message=lambda **_: {}),
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.place for example in EXAMPLES])
def test_docstring_example_runs(
    example: Example, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builtins, "print", lambda *_, **__: None)
    monkeypatch.setattr(builtins, "input", lambda _: None)
    monkeypatch.setattr(
        rxtweets, "sample_stream", partial(rxtweets.sample_stream, limit=100, token="any")
    )
    for name in ("dead-letters.jsonl", "failed.jsonl"):
        (tmp_path / name).touch()
    shutil.copy(RECORDING, tmp_path)
    with ExitStack() as stack:
        x = stack.enter_context(rxtweets.simulator.serve(rate=2000))
        monkeypatch.setenv("X_BEARER_TOKEN", "any")
        monkeypatch.setenv("RXTWEETS_BASE_URL", x.url)
        names = surroundings(stack)
        result = eval(example.code, names)  # noqa: S307 - our own text
        if inspect.iscoroutine(result):
            asyncio.run(result)
        for value in names.values():
            if isinstance(value, rxtweets.Pipeline | rxtweets.HotStream):
                value.stop()


def test_examples_are_found() -> None:
    assert len(EXAMPLES) > 20


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.name)
def test_test_names_have_at_most_60_characters(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert [n for n in names if n.startswith("test_") and len(n) > LONGEST_NAME] == []
