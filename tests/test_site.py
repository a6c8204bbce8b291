"""What a person sees of the site in a browser. CONTRIBUTING.md has the command that builds it."""

import functools
import http.server
import os
import threading

import pytest

from tests.browser import SECONDS, open_browser
from tests.test_readme import ROOT

SITE = ROOT / "build" / "docs"
# What people type, and the page that must come first.
SEARCHES = {
    "dice": "api/losses/Dice.html",
    "pinn": "recipes/pinn.html",
    "missing labels": "recipes/missing_labels.html",
    "add_loss": "moving/add_loss.html",
}
FIRST_HIT = "return document.querySelector('#search-results ul.search a')?.href"
BROKEN = """
return [...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.src);
"""
TOO_WIDE = """
const root = document.documentElement;
return root.scrollWidth > root.clientWidth ? root.scrollWidth : 0;
"""
BACKGROUND = "return getComputedStyle(document.body).backgroundColor"

pytestmark = pytest.mark.browser


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    """The address of the site, on a server of this machine."""
    if not (SITE / "index.html").is_file():
        message = "build the site first: sphinx-build -W --keep-going -b html docs build/docs"
        assert os.environ.get("CI") != "true", message
        pytest.skip(message)
    handler = functools.partial(Quiet, directory=SITE)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


def pages():
    """Every page but the sources of the package."""
    found = (file.relative_to(SITE) for file in sorted(SITE.rglob("*.html")))
    return [file.as_posix() for file in found if file.parts[0] != "_modules"]


def see_as(driver, width, scheme):
    """The window of a phone or a desk, in a colour scheme of the system."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    preferred = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": preferred})


@pytest.mark.parametrize("words, page", SEARCHES.items())
def test_the_search_finds_the_page_first(driver, address, words, page):
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get(f"{address}/search.html?q={words}")
    wait = WebDriverWait(driver, SECONDS, poll_frequency=0.2)
    # Hits are added one by one, the best first.
    found = wait.until(lambda _: driver.execute_script(FIRST_HIT), f"nothing for {words}")
    assert found.partition("?")[0].partition("#")[0] == f"{address}/{page}"


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (400, "dark")])
def test_every_page_is_whole(driver, address, width, scheme):
    """No error in the console, no broken picture, nothing to scroll sideways."""
    see_as(driver, width, scheme)
    driver.get_log("browser")
    wrong = {}
    for page in pages():
        driver.get(f"{address}/{page}")
        errors = [entry["message"] for entry in driver.get_log("browser")]
        found = [*errors, *driver.execute_script(BROKEN)]
        if too_wide := driver.execute_script(TOO_WIDE):
            found.append(f"{too_wide} px wide")
        if found:
            wrong[page] = found
    assert not wrong


def test_both_colour_schemes_are_there(driver, address):
    backgrounds = []
    for scheme in ("light", "dark"):
        see_as(driver, 1280, scheme)
        driver.get(f"{address}/index.html")
        backgrounds.append(driver.execute_script(BACKGROUND))
    assert len(set(backgrounds)) == 2, backgrounds
