"""The notebook runs, cell by cell, in a kernel, and shows its figures."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from tests.conftest import CACHE

ROOT = Path(__file__).parents[1]
NOTEBOOK = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))
CODE = {cell["id"]: "".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"}
# Steps of the trainings in a test.
FEWER = {"steps=2000": "steps=50", "steps=1000": "steps=50"}


def shown_by(client, code):
    """What a cell shows: the kinds of its outputs, and its result in plain text.

    Raises:
        AssertionError: it fails.
    """
    kinds, text = [], []

    def collect(message):
        content = message["content"]
        assert message["msg_type"] != "error", "\n".join(content["traceback"])
        kinds.extend(content.get("data", {}))
        text.append(content.get("data", {}).get("text/plain", ""))

    reply = client.execute_interactive(code, timeout=300, output_hook=collect)
    assert reply["content"]["status"] == "ok"
    return kinds, "\n".join(text)


@pytest.mark.skipif(importlib.util.find_spec("ipykernel") is None, reason="ipykernel is not there")
@pytest.mark.filterwarnings("ignore")
def test_every_cell_runs_and_shows_what_it_makes(tmp_path):
    from jupyter_client import KernelManager

    manager = KernelManager(kernel_cmd=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": CACHE, "IPYTHONDIR": str(tmp_path)}
    manager.start_kernel(env=environment, cwd=str(tmp_path))
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        shown = {}
        for name, code in CODE.items():
            for steps, fewer in FEWER.items():
                code = code.replace(steps, fewer)
            shown[name] = shown_by(client, code)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    pictures = {name: kinds.count("image/png") for name, (kinds, _) in shown.items()}
    assert pictures == {"sweep": 0, "table": 0, "figures": 2, "page": 1, "browser": 0, "modern": 1, "lane": 0}
    assert "text/html" in shown["sweep"][0] and "rho" in shown["table"][1] and "array" in shown["lane"][1]
    assert "text/html" in shown["browser"][0]
    assert not list(tmp_path.glob("runs"))


def test_it_is_kept_without_what_it_showed():
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == 7 and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert all(sum("steps=" in line for line in code.splitlines()) <= 1 for code in CODE.values())
    assert {steps for code in CODE.values() for steps in FEWER if steps in code} == set(FEWER)
