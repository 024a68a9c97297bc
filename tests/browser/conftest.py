"""Debian's chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


def needed(missing: str) -> None:
    """Skip if a package is missing, unless all tests are required."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{missing} is missing, and CI=true")
    pytest.skip(f"{missing} is missing: pip install rxtweets[browser], and Debian's chromium")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        needed("playwright")
    found = shutil.which("chromium")
    if found is None:
        needed("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()
