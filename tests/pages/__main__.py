"""How large plotting libraries are, and how long a browser takes from their first byte to a heatmap of 12 x 16 fields.

    python -m tests.pages

Bokeh is what a page is drawn by; Plotly is measured beside it where it is installed (python -m pip install plotly).
"""

from __future__ import annotations

import importlib.util
import shutil
import statistics
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from sae_jax.pages.page import in_script, library

TIMES = 5
FIELDS = "const [y, x] = [[], []]; for (let i = 0; i < 192; i += 1) { y.push(Math.floor(i / 16)); x.push(i % 16); }"
BOKEH = """
const shown = Bokeh.Plotting.figure({ width: 700, height: 500 });
const data = new Bokeh.ColumnDataSource({ data: { x, y, z: x.map((value, i) => value * y[i]) } });
const palette = ["#440154", "#31688e", "#35b779", "#fde725"];
const transform = new Bokeh.LinearColorMapper({ palette, low: 0, high: 165 });
shown.rect({ field: "x" }, { field: "y" }, 1, 1, { source: data, fill_color: { field: "z", transform } });
const drawn = Bokeh.Plotting.show(shown, "#place");
"""
PLOTLY = """
const rows = Array.from({ length: 12 }, (_, i) => Array.from({ length: 16 }, (_, j) => i * j));
const drawn = Plotly.newPlot("place", [{ type: "heatmap", z: rows, colorscale: "Viridis" }]);
"""
PAGE = """<!doctype html><meta charset="utf-8"><div id="place" style="width:700px;height:500px"></div>
<script>const began = performance.now();</script><script>{library}</script>
<script>{fields} {draw}
const frame = (then) => requestAnimationFrame(then);
drawn.then(() => frame(() => frame(() => {{ window.took = performance.now() - began; }})));
</script>"""


def libraries() -> dict[str, tuple[str, str]]:
    """The scripts of every library that is here, and what draws the heatmap with them."""
    found = {"Bokeh": (library(), BOKEH)}
    plotly = importlib.util.find_spec("plotly")
    if plotly and plotly.origin:
        scripts = Path(plotly.origin).parent / "package_data" / "plotly.min.js"
        found["Plotly"] = (scripts.read_text(), PLOTLY)
    return found


def main() -> None:
    """Measure, and print a line for each."""
    with sync_playwright() as started, tempfile.TemporaryDirectory() as folder:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (scripts, draw) in libraries().items():
            path = Path(folder) / f"{name}.html"
            path.write_text(PAGE.format(library=in_script(scripts), fields=FIELDS, draw=draw))
            took = []
            for _ in range(TIMES):
                tab = browser.new_page()
                tab.goto(path.as_uri())
                tab.wait_for_function("window.took")
                took.append(tab.evaluate("window.took"))
                tab.close()
            size = len(scripts.encode()) / 1e6
            print(f"{name}: {size:.2f} MB, {statistics.median(took):.0f} ms to the first heatmap (median of {TIMES})")
        print(f"Chromium {browser.version}")
        browser.close()


if __name__ == "__main__":
    main()
