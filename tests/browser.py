"""Debian's Chromium without a window, for the tests of what a person sees."""

import contextlib
import os
import shutil

import pytest

BROWSER, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
SECONDS = 90  # for each step; a CI machine is slow, and others work on it
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --window-size=1280,900"
    " --disable-background-networking --disable-component-update --disable-sync"
)


@contextlib.contextmanager
def open_browser(folder):
    """A driver; where there is no browser the test is skipped, but not in CI."""
    found = [shutil.which(path) for path in (BROWSER, DRIVER)]
    if None in found and os.environ.get("CI") != "true":
        pytest.skip(f"needs {BROWSER} and {DRIVER}")
    assert None not in found, f"CI needs {BROWSER} and {DRIVER}"
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in [*FLAGS.split(), f"--user-data-dir={folder}"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(SECONDS)
    try:
        yield driver
    finally:
        driver.quit()
