"""Every test leaves the registries as they were."""

import pytest

from tests.plugins.files import forgotten


@pytest.fixture(autouse=True)
def no_plugin_stays_loaded():
    """Unload what a test has loaded."""
    with forgotten():
        yield
