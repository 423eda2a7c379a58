"""What tests of a page in a browser share: waiting, reading the address, clicking and downloading."""

import time


def until(tab, condition, *given):
    """Wait until a condition holds in the page, whose own rules allow no library to poll there."""
    began = time.monotonic()
    # Only whether it holds leaves the page: what stands for it may be a chart with all that hangs on it.
    while not tab.evaluate_handle(condition, *given).evaluate("Boolean"):
        assert time.monotonic() - began < 20, f"{condition}: got {tab.url}"
        tab.wait_for_timeout(20)


def fragment(tab):
    return dict(part.split("=") for part in tab.evaluate("location.hash.slice(1)").split("&") if part)


def click_field(tab, column, row, columns, rows):
    """Click a field of the heatmap, whose frame Bokeh knows."""
    box = tab.evaluate(
        """() => { const view = document.querySelector('#view-grid .plot').view, at = view.el.getBoundingClientRect();
                   const inner = view.frame.bbox;
                   return [at.left + inner.left, at.top + inner.top, inner.width, inner.height]; }"""
    )
    tab.mouse.click(box[0] + box[2] * (column + 0.5) / columns, box[1] + box[3] * (row + 0.5) / rows)


def downloaded(tab, locator):
    with tab.expect_download() as download:
        locator.click()
    return download.value.path().read_bytes(), download.value.suggested_filename
