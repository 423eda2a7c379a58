"""Images that are white already are known by their spectra, and whoever would whiten them again is told."""

import numpy as np
import pytest

from sae_jax import DataConfig, load, sweep
from sae_jax.data.patches import WHITE_SLOPE, photographs, spectral_slope, whiten
from sae_jax.settings import SweepWarning
from tests.commands.test_commands import run

RNG = np.random.default_rng(0)
SMALL = {"d_hidden": 3, "steps": 2, "batch_size": 20}
SAID = "the images are white already: their amplitudes grow with frequency to the power"


@pytest.fixture(scope="module")
def images():
    """Parts of photographs, as they are and white, and noise: arrays [n, 96, 96]."""
    raw = photographs()
    parts = {"raw": raw, "white": [whiten(image) for image in raw], "noise": [RNG.normal(size=(96, 96))] * 6}
    return {name: np.stack([image[:96, :96] for image in several]) for name, several in parts.items()}


@pytest.mark.parametrize("image", photographs(), ids=range(6))
def test_photographs_are_told_from_what_whitening_makes_of_them(image):
    assert spectral_slope(image) < WHITE_SLOPE - 0.2 and spectral_slope(whiten(image)) > WHITE_SLOPE


@pytest.mark.parametrize("power", [0.0, -0.5, -1.0, -1.5])
def test_the_slope_is_the_power_of_the_amplitudes(power):
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None, :])
    frequency[0, 0] = 1.0
    made = np.real(np.fft.ifft2(np.fft.fft2(RNG.normal(size=(256, 256))) * frequency**power))
    assert spectral_slope(made) == pytest.approx(power, abs=0.15)


@pytest.mark.parametrize("image", [np.ones((64, 64)), RNG.normal(size=(63, 200))], ids=["constant", "small"])
def test_images_without_a_spectrum_to_speak_of_have_no_slope(image):
    assert np.isnan(spectral_slope(image))


@pytest.mark.parametrize(("kind", "warned"), [("raw", False), ("white", True), ("noise", True)])
def test_whitening_what_is_white_already_is_warned_of(kind, warned, images, tmp_path):
    np.save(tmp_path / "images.npy", images[kind])
    config = DataConfig(dataset=f"images:{tmp_path / 'images.npy'}", samples=100)
    assert load(config).warning.startswith(SAID) == warned
    if warned:
        with pytest.warns(SweepWarning, match=SAID) as caught:
            sweep(config, **SMALL)
        assert caught[0].filename == __file__
    assert not load(DataConfig(dataset=config.dataset, samples=100, whiten=False)).warning


def test_the_command_says_so_too_and_what_to_try(images, tmp_path):
    np.save(tmp_path / "images.npy", images["white"])
    words = ["--dataset", "images:images.npy", "--samples", "100", "--d-hidden", "3", "--steps", "2", "--rho", ".1"]
    words += ["--beta", "1", "--batch-size", "20", "--seeds", "1", "--figures", "False", "--report", "False"]
    first, second = (run("sweep", *words, *more, cwd=tmp_path).stdout for more in ([], ["--whiten", "False"]))
    assert f"warning: {SAID}" in first and "so try whiten False" in first
    assert SAID not in second
