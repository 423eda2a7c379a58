"""What a page holds of a run is what the run holds; it says what it leaves out, and runs nothing that files say."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jax
import numpy as np
import pytest

from sae_jax import DataConfig, UserError, load, sweep
from sae_jax.analysis.options import UnitsConfig
from sae_jax.analysis.run import open as open_run
from sae_jax.analysis.units import measure
from sae_jax.commands import sweep as command
from sae_jax.pages import about
from sae_jax.pages import page as pages
from sae_jax.pages.cells import OF_UNITS
from sae_jax.pages.packing import Packer, Room, as_bytes, rounded
from sae_jax.pages.page import Shown, page
from sae_jax.storage import results
from sae_jax.storage.arrays import no_storage
from sae_jax.sweeps.keep import keep_parameters
from sae_jax.sweeps.merge import merge
from tests.pages.conftest import SHORT
from tests.pages.packed import runs_of, unpacked, weights
from tests.storage.test_format1 import RUN


@pytest.fixture(scope="module")
def shown(digits):
    return page([Shown("digits", digits)], "1.2.3")


@pytest.fixture(scope="module")
def run(shown):
    [run] = runs_of(shown)
    return run


def test_arrays_come_back_as_they_were_put():
    packer, rng = Packer(), np.random.default_rng(0)
    floats, whole, small = rng.normal(size=(3, 5)).astype(np.float32), np.arange(7) - 3, np.arange(5, dtype=np.uint8)
    places = [packer.put(floats, exact=True), packer.put(small), packer.put(whole), packer.put(floats)]
    content = unpacked(packer.packed({"name": "a</script>", "places": places}))
    read = [content["read"](place) for place in content["places"]]
    np.testing.assert_array_equal(read[0], floats)
    np.testing.assert_array_equal(read[1], small)
    np.testing.assert_array_equal(read[2], whole)
    np.testing.assert_allclose(read[3], floats, rtol=2**-13)
    assert np.any(read[3] != floats)


def test_rounding_keeps_what_is_no_number_and_large_ones():
    values = np.array([np.nan, np.inf, -np.inf, 0, 3e38, 1e-30], np.float32)
    np.testing.assert_allclose(rounded(values), values, rtol=2**-13)


def test_bytes_and_room_stay_within_their_limits():
    np.testing.assert_array_equal(as_bytes(np.array([-2, -1, 0, 1, 5, np.nan]), -1, 1), [0, 0, 128, 255, 255, 128])
    room = Room(10)
    assert room.take(6) and not room.take(6) and room.take(4) and not room.take(1)


def test_measures_and_curves_are_those_of_the_run(run, digits):
    assert [axis["name"] for axis in run["axes"]] == ["rho", "beta"] and run["axes"][0]["values"] == ["0.05", "0.1"]
    measures = {one["name"]: one for one in run["measures"]}
    assert {"eval_explained_variance", "eval_l0", "eval_dead_fraction"} <= set(measures)
    found = run["read"](measures["eval_explained_variance"]["values"])
    np.testing.assert_array_equal(found, digits["eval_explained_variance"].values.reshape(4, 3))
    assert measures["eval_reconstruction"]["lower"] and not measures["eval_explained_variance"]["lower"]
    loss = next(one for one in run["curves"] if one["name"] == "loss")
    np.testing.assert_allclose(
        run["read"](loss["values"]), digits["loss"].values.reshape(4, 3, -1), rtol=2**-13, atol=1e-7
    )
    np.testing.assert_array_equal(run["read"](loss["x"]["values"]), digits["step"].values)
    np.testing.assert_allclose(run["read"](run["rho"]), [0.05, 0.05, 0.1, 0.1])
    best = digits["eval_explained_variance"].values.reshape(4, 3)
    np.testing.assert_array_equal(run["read"](run["best"]), best.argmax(axis=1))
    assert run["first"] == best.max(axis=1).argmax()


def test_units_are_those_of_every_lane(run, digits):
    assert sorted(map(int, run["lanes"])) == list(range(12))
    rows = digits["decoder_weight"].values.reshape(12, 6, 64)
    for number, lane in run["lanes"].items():
        for part, name in OF_UNITS.items():
            np.testing.assert_array_equal(run["read"](lane[part]), digits[name].values.reshape(12, 6)[int(number)])
        np.testing.assert_allclose(weights(run, lane), rows[int(number)], atol=0.004 * np.abs(rows).max())
        assert lane["shape"] == [8, 8] and lane["units"] == 6


def test_samples_of_units_are_those_that_the_command_units_finds(run, digits):
    seeds = [0, 1, 2]
    kept = measure(digits, UnitsConfig(top=12, quantiles=(0.25, 0.5, 0.75), each=4)).variables
    detailed = {number: lane["detail"] for number, lane in run["lanes"].items() if "detail" in lane}
    assert sorted(map(int, detailed)) == list(range(12))
    for number, detail in detailed.items():
        cell, seed = divmod(int(number), 3)
        lane = kept.isel(rho=cell // 2, beta=cell % 2, seed=seed)
        read = {name: run["read"](place) for name, place in detail.items() if isinstance(place, dict)}
        np.testing.assert_array_equal(read["top"], lane["units_top_sample"])
        np.testing.assert_array_equal(read["top_codes"], lane["units_top_activation"])
        np.testing.assert_array_equal(read["density"], lane["units_density"])
        np.testing.assert_array_equal(read["density"] > run["dense"], lane["units_dense"])
        np.testing.assert_array_equal(read["nearest_cosines"][:, 0], lane["units_nearest_cosine"][:, 0])
        np.testing.assert_array_equal(read["nearest"], lane["units_nearest"])
        others = [other for other in seeds if other != seed]
        assert detail["seeds"] == others
        np.testing.assert_array_equal(read["match"], lane["units_match"].sel(other_seed=others))
        counts = read["histogram"].sum(axis=1)
        np.testing.assert_allclose(counts, read["density"] * detail["of"], rtol=1e-6)
        few = counts <= 512  # Of more the command looks at some that are drawn.
        np.testing.assert_array_equal(read["at_quantiles"][few], lane["units_quantile_sample"][few])
        samples = run["samples"][detail["samples"]]
        assert set(read["top"][read["top"] >= 0]) <= set(run["read"](samples["numbers"])) and samples["shape"] == [8, 8]


def test_the_best_seeds_are_given_room_first(digits, monkeypatch):
    monkeypatch.setattr(pages, "ARRAY_BYTES", 60_000)
    [run] = runs_of(page([Shown("digits", digits)], "1"))
    kept = {int(number) for number, lane in run["lanes"].items() if "detail" in lane}
    best = {3 * cell + int(seed) for cell, seed in enumerate(run["read"](run["best"]))}
    assert best < kept and len(kept) < 12


def test_how_a_run_was_made_stands_on_its_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "digits", "--samples", "200", "--steps", "3", "--rho", ".1", "--beta", "1", "--seeds", "1"]
    command.main([*words, "--figures", "False", "--name", "made"])
    text = (tmp_path / "runs/made/report.html").read_text()
    read = html.unescape(text.partition("<script type")[0])
    assert "--samples 200" in read and f"<td>{jax.__version__}</td>" in read
    assert re.search(r'<th scope="row">samples</th><td>200</td><td>training samples', read)
    cited = (Path(__file__).parents[2] / "CITATION.cff").read_text()
    assert f'title: "{about.TITLE}"' in cited and "license: Apache-2.0" in cited and "The sae_jax authors" in cited
    assert about.TITLE.replace("_", r"\_") in read


HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


class Tags(HTMLParser):
    """The tags of a page, and its text outside of scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data if self.tags and self.tags[-1] not in ("script", "style") else ""


def test_nothing_that_comes_from_files_is_read_as_html(digits, shown, tmp_path):
    record = {"command": HOSTILE, "devices": HOSTILE, "versions": {HOSTILE: HOSTILE}, "packing": []}
    record |= {"settings": {}, "run": {}}
    (tmp_path / "config.json").write_text(json.dumps(record))
    hostile = Tags(page([Shown(HOSTILE, digits.assign_coords(data_dir=HOSTILE), tmp_path)], "1"))
    assert hostile.text.count(HOSTILE) == 8  # Title, heading, article, region, setting, command, devices, versions.
    assert sorted(set(hostile.tags)) == sorted(set(Tags(shown).tags)) and hostile.tags.count("script") == 3


def test_scripts_hold_no_word_that_would_end_them(shown):
    for script in re.findall(r"<script>\n(.*?)\n</script>\n", shown, re.DOTALL):
        assert len(script) > 10_000 and not re.search("</script|<!--", script, re.IGNORECASE)
    assert len(re.findall(r"<script[ >]", shown.partition("Copyright (c) Anaconda")[0])) == 2
    assert not re.search(r'(src|href)="(http|//)', shown.partition("<script type")[0])


def test_what_has_no_room_is_said(digits, monkeypatch):
    monkeypatch.setattr(pages, "ARRAY_BYTES", 2_000)
    text = page([Shown("digits", digits)], "1")
    said = re.findall(r'<p class="note left-out">(.*?)</p>', text)
    assert any("decoder rows of 1" in line and "of 12 lanes are left out" in line for line in said)
    assert any("samples of units are in the page for 0 of 12 lanes" in line for line in said)
    [run] = runs_of(text)
    assert all("detail" not in lane for lane in run["lanes"].values()) and len(run["lanes"]) == 12


def test_a_page_of_the_largest_room_stays_below_15_megabytes():
    noise = np.random.default_rng(0).integers(0, 256, pages.ARRAY_BYTES, dtype=np.uint8)
    packer = Packer()
    content = packer.packed({"noise": packer.put(noise)})
    scripts = sum(path.stat().st_size for path in pages.TEMPLATES.iterdir())
    # Beside the units: curves, measures and words.
    assert len(content) + len(pages.library()) + scripts < 13_500_000


def with_holes(digits):
    return merge(digits.isel(rho=[0], beta=[0]), digits.isel(rho=[1]))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda one: one.isel(rho=[0], beta=[0], seed=[0]), id="one lane"),
        pytest.param(lambda one: one.isel(rho=0, beta=1), id="no axes"),
        pytest.param(lambda one: one.isel(seed=1), id="one seed"),
        pytest.param(with_holes, id="holes"),
        pytest.param(lambda one: keep_parameters(one, "none", no_storage), id="no parameters"),
        pytest.param(lambda one: keep_parameters(one, "best", no_storage), id="best seed's parameters"),
        pytest.param(lambda one: one.transpose(..., "rho"), id="transposed"),
        pytest.param(lambda one: one.drop_vars(["eval_firing_rate", "eval_explained_variance"]), id="few measures"),
    ],
)
def test_runs_of_other_shapes_have_pages(change, digits):
    changed = change(digits)
    text = page([Shown("changed", changed)], "1")
    [run] = runs_of(text)
    assert len(run["read"](run["best"])) == np.prod([len(axis["values"]) for axis in run["axes"]], dtype=int)
    if changed.attrs.get("parameters_of") == "none":
        assert "Samples of units are left out: " in text and not any("rows" in one for one in run["lanes"].values())
    else:
        assert any("detail" in lane for lane in run["lanes"].values())
    kept_best = changed.attrs.get("parameters_of") == "best"
    assert ("left out for the 8 of 12 lanes that have no parameters kept" in text) == kept_best


def test_lanes_that_diverged_are_told_apart(digits):
    diverged = digits["diverged_at"].copy()
    diverged[0, 1] = 7
    text = page([Shown("a", digits.assign(diverged_at=diverged))], "1")
    [run] = runs_of(text)
    assert "Samples of units are left out for the 3 of 12 lanes that diverged." in text
    assert run["read"](run["diverged"]).tolist() == [[-1] * 3, [7] * 3, [-1] * 3, [-1] * 3]
    assert np.isnan(run["read"](run["measures"][0]["values"])[1]).all()
    assert not any("detail" in run["lanes"][str(number)] for number in (3, 4, 5)) and run["first"] != 1


def test_several_models_and_known_features_have_a_page():
    words = {"model": ["topk", "jumprelu"], "target_l0": [2.0, 3.0], "d_hidden": 8, "seeds": 1, "steps": 30}
    [run] = runs_of(page([Shown("a", sweep(DataConfig(dataset="superposition"), batch_size=32, **words))], "1"))
    assert [axis["name"] for axis in run["axes"]] == ["model", "target_l0"] and run["axes"][0]["numbers"] is None
    assert {"truth_mcc", "truth_f1"} <= {one["name"] for one in run["measures"]}
    assert run["frontier"]["x"] == "eval_l0" and run["frontier"]["along"] == "target_l0"


def test_units_of_transcoders_are_shown_with_what_they_encode(tmp_path):
    x = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    for name, values in (("x", x), ("y", np.maximum(x[:, :4], 0))):
        np.save(tmp_path / f"{name}.npy", values)
    config = DataConfig(dataset=f"array:{tmp_path / 'x.npy'}", targets=str(tmp_path / "y.npy"))
    trained = sweep(config, model="topk", k=2, d_hidden=5, seeds=2, **SHORT)
    text = page([Shown("pairs", trained, data=load(config))], "1")
    [run] = runs_of(text)
    kept = measure(trained, UnitsConfig(top=12, quantiles=(0.25, 0.5, 0.75), each=4)).variables.isel(seed=0)
    detail = run["lanes"]["0"]["detail"]
    np.testing.assert_array_equal(run["read"](detail["top"]), kept["units_top_sample"].squeeze())
    assert "topk transcoders: 1 cell x 2 seeds" in text and " of topk transcoders: " in repr(open_run(trained))


def test_settings_that_are_paired_are_named_together():
    zipped = sweep(
        DataConfig(dataset="digits"), zip=["rho", "beta"], rho=[0.05, 0.1], beta=[1.0, 2.0], seeds=1, **SHORT
    )
    [run] = runs_of(page([Shown("a", zipped)], "1"))
    [axis] = run["axes"]
    assert axis["values"] == ["rho 0.05, beta 1", "rho 0.1, beta 2"]


def test_a_run_of_an_earlier_version_has_a_page():
    text = page([Shown("format1", results.load(RUN), RUN)], "1")
    assert all(one["measures"] for one in runs_of(text))


def test_samples_that_are_gone_are_said_and_the_rest_is_there(tmp_path):
    samples = np.random.default_rng(0).uniform(0.1, 0.9, (80, 5)).astype(np.float32)
    np.save(tmp_path / "a.npy", samples)
    trained = sweep(DataConfig(dataset=f"array:{tmp_path / 'a.npy'}"), d_hidden=3, seeds=1, steps=5, batch_size=20)
    [run] = runs_of(page([Shown("a", trained)], "1"))
    assert run["samples"] and "names" not in run["samples"][0] and "pictures" not in run["samples"][0]
    (tmp_path / "a.npy").unlink()
    text = page([Shown("a", trained)], "1")
    assert "Samples of units are left out: " in text and "a.npy" in text and runs_of(text)[0]["measures"]


def test_a_page_that_cannot_be_written_is_refused_in_a_line(digits, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UserError, match=r"^--out must be writable: got .*; choose another$"):
        pages.write_page([Shown("a", digits)], tmp_path / "report.html", "1", "--out", "choose another")
