"""How well decoder rows are described by Gabor functions: the field's test of oriented edge filters."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares

# Starting widths of the envelope, as fractions of the side, and phases of the wave: the fit has local optima.
WIDTHS = (0.2, 0.4)
PHASES = (0.0, np.pi / 2)
SPECTRUM = 32


def gabor_fit(filters: Float[np.ndarray, "units inputs"], shape: tuple[int, int]) -> Float[np.ndarray, " units"]:
    """R^2 of the best-fitting Gabor function of every filter; 1 is a perfect Gabor, 0 explains nothing.

        g(x, y) = a exp(-u^2 / 2 s_u^2 - v^2 / 2 s_v^2) cos(2 pi f u + phase)

    with (u, v) the coordinates rotated and shifted. Each filter's own mean is subtracted first.

    Args:
        filters: decoder rows, [units, height * width].
        shape: (height, width).

    Returns:
        R^2, [units]; NaN for a constant filter.

    Source: Jones and Palmer 1987, "An evaluation of the two-dimensional Gabor filter model", equation 1.
    """
    return np.array([_fit_one(np.asarray(row, float).reshape(shape)) for row in filters])


def gabor(parameters: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The Gabor function of `gabor_fit` at (x, y); parameters are a, x0, y0, s_u, s_v, angle, f, phase."""
    a, x0, y0, s_u, s_v, angle, frequency, phase = parameters
    u = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
    v = -(x - x0) * np.sin(angle) + (y - y0) * np.cos(angle)
    return a * np.exp(-(u**2) / (2 * s_u**2) - v**2 / (2 * s_v**2)) * np.cos(2 * np.pi * frequency * u + phase)


def _fit_one(picture: np.ndarray) -> float:
    picture = picture - picture.mean()
    norm = np.linalg.norm(picture)
    if norm < 1e-12:
        return float("nan")
    picture = picture / norm
    height, width = picture.shape
    y, x = np.mgrid[:height, :width].astype(float)
    energy = picture**2 / np.sum(picture**2)
    centre = float(np.sum(energy * x)), float(np.sum(energy * y))
    frequency, angle = _strongest_wave(picture)
    side = max(height, width)
    low = [-3, -2, -2, 0.4, 0.4, -np.inf, 0, -np.inf]
    high = [3, width + 1, height + 1, 3 * side, 3 * side, np.inf, 0.5, np.inf]
    best = 0.0
    for relative in WIDTHS:
        for phase in PHASES:
            start = [0.3, *centre, relative * side, relative * side, angle, frequency, phase]
            fit = least_squares(lambda p: (gabor(p, x, y) - picture).ravel(), start, bounds=(low, high), max_nfev=80)
            best = max(best, 1 - 2 * fit.cost)
    return best


def _strongest_wave(picture: np.ndarray) -> tuple[float, float]:
    """Frequency in cycles per pixel and angle of the largest Fourier component, from a zero-padded spectrum."""
    spectrum = np.abs(np.fft.fft2(picture, (SPECTRUM, SPECTRUM)))
    row, column = np.unravel_index(np.argmax(spectrum), spectrum.shape)
    along_y, along_x = np.fft.fftfreq(SPECTRUM)[row], np.fft.fftfreq(SPECTRUM)[column]
    return min(float(np.hypot(along_x, along_y)), 0.49), float(np.arctan2(along_y, along_x))
