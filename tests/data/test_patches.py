"""Patches of photographs: whitening, what is held out, where they are cut out."""

import itertools

import numpy as np
import pytest

from sae_jax.data import load
from sae_jax.data.config import DataConfig
from sae_jax.data.patches import draw, heldout_pixels, photographs, whiten

RNG = np.random.default_rng(0)


def test_patches_have_the_asked_for_shape_and_range_and_are_the_same_every_time():
    config = DataConfig(samples=900, patch_size=6, heldout=0.25)
    first, second = load(config), load(config)
    assert first.train.shape == (900, 36) and first.heldout.shape == (300, 36)
    assert first.image_shape == (6, 6) and first.train.dtype == np.float32
    assert first.train.min() == pytest.approx(0.1) and first.train.max() == pytest.approx(0.9)
    np.testing.assert_array_equal(first.train, second.train)
    assert np.any(load(DataConfig(samples=900, patch_size=6, data_seed=1)).train != first.train)
    assert "6 photographs, whitened: 900 samples of 6x6 pixels" in first.description
    assert "300 held out" in first.description and "ufldl normalisation" in first.description


def test_photographs_are_grey():
    images = photographs()
    assert len(images) == 6 and all(image.ndim == 2 and image.min() >= 0 and image.max() <= 1 for image in images)


def radial_slope(image):
    """Slope of log power against log frequency, between 0.02 and 0.3 cycles per pixel."""
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    frequency = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.fftfreq(image.shape[1])[None, :])
    edges = np.geomspace(0.02, 0.3, 12)
    rings = [power[(frequency >= low) & (frequency < high)].mean() for low, high in itertools.pairwise(edges)]
    return np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), np.log(rings), 1)[0]


def test_whitening_flattens_the_spectrum_and_cuts_the_corners_off():
    image = photographs()[0]
    assert radial_slope(image) < -1.5
    assert abs(radial_slope(whiten(image))) < 0.8
    white = whiten(image)
    assert white.mean() == pytest.approx(0, abs=1e-9) and white.std() == pytest.approx(1)


def test_whitening_multiplies_the_spectrum_by_the_published_gain():
    noise = RNG.normal(size=(32, 48))
    ratio = np.fft.fft2(whiten(noise)) / np.fft.fft2(noise)
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(48)[None, :])
    expected = frequency * np.exp(-((frequency / 0.4) ** 4))
    np.testing.assert_allclose(np.real(ratio / ratio[3, 5]), expected / expected[3, 5], atol=1e-9)


def test_heldout_patches_share_no_pixel_with_training_patches(tmp_path):
    # Every pixel is its own column number, so a patch tells where it comes from.
    images = np.broadcast_to(np.arange(50.0), (3, 20, 50))
    np.save(tmp_path / "columns.npy", images)
    config = DataConfig(
        dataset=f"images:{tmp_path / 'columns.npy'}", samples=500, patch_size=5, whiten=False, normalize="none"
    )
    data = load(config)
    assert data.train.max() < data.heldout.min()
    assert data.train.min() == 0 and data.heldout.max() == 49


@pytest.mark.parametrize("shape, share", [((130, 171), 0.1), ((90, 90), 0.5), ((200, 200), 0.02), ((12, 300), 0.1)])
def test_blocks_that_are_held_out_leave_room_for_training_patches(tmp_path, shape, share):
    # Every pixel is its own number.
    np.save(tmp_path / "pixels.npy", np.arange(np.prod(shape), dtype=float).reshape(1, *shape))
    config = DataConfig(
        dataset=f"images:{tmp_path / 'pixels.npy'}",
        samples=400,
        patch_size=6,
        heldout=share,
        whiten=False,
        normalize="none",
    )
    data = load(config)
    assert not set(data.train.ravel()) & set(data.heldout.ravel())
    out = heldout_pixels(shape, 6, share, np.random.default_rng([0, 0, 2]))
    assert set(data.heldout.ravel()) <= set(np.flatnonzero(out)) and 0.4 * share < out.mean() < 1.2 * share


def test_fewer_patches_than_images_are_drawn_from_some_of_them(tmp_path):
    np.save(tmp_path / "images.npy", RNG.normal(size=(30, 32, 32)).astype(np.float32))
    data = load(DataConfig(dataset=f"images:{tmp_path / 'images.npy'}", samples=50))
    assert len(data.train) == 50 and len(data.heldout) == 6
    assert len(load(DataConfig(heldout=5e-4)).heldout) == 5


def test_a_small_image_holds_out_a_strip():
    for shape, share in (((64, 64), 0.1), ((32, 40), 0.3), ((40, 300), 1e-4)):
        out = heldout_pixels(shape, 8, share, np.random.default_rng(0))
        assert out[:, -8:].all() and not out[:, : shape[1] - max(8, round(share * shape[1]))].any()


def test_heldout_patches_vary_as_training_patches_do():
    ratios = []
    for seed in range(5):
        data = load(DataConfig(data_seed=seed, normalize="none"))
        spreads = [np.var(part - part.mean(axis=1, keepdims=True)) for part in (data.train, data.heldout)]
        ratios.append(spreads[1] / spreads[0])
    # A strip at the right edges, where two of the photographs are out of focus, had .67.
    assert min(ratios) > 0.8 and max(ratios) < 1.2 and abs(np.mean(ratios) - 1) < 0.05, ratios


def test_patches_are_cut_out_of_the_image_unchanged():
    image = RNG.normal(size=(9, 11))
    windows = {image[i : i + 3, j : j + 3].tobytes() for i in range(7) for j in range(9)}
    patches = draw(image, np.ones(image.shape, bool), 3, 2000, np.random.default_rng(0))
    assert {patch.reshape(3, 3).tobytes() for patch in patches} == windows


def test_constant_images_are_whitened_to_nothing():
    np.testing.assert_array_equal(whiten(np.full((50, 50), 0.3)), 0)
