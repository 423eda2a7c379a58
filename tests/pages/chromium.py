"""Where Chromium is, and whether there is what drives it."""

import importlib.util
import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LACKING = "" if CHROMIUM else "Chromium is missing: apt-get install chromium"
if importlib.util.find_spec("playwright") is None:
    LACKING = "playwright is missing: requirements-dev.txt names it"
needs_browser = pytest.mark.skipif(bool(LACKING), reason=LACKING)
