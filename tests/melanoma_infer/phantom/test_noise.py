"""Random numbers that depend on the position only."""

import numpy as np
import pytest

from melanoma_infer.phantom.noise import as_cells, draws, stream, uniform, value_noise


def axes(width: int, height: int, cell: float = 7.3, first: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    u = (first + np.arange(width))[None, :] / cell
    v = (first + np.arange(height))[:, None] / cell
    return u, v


def test_values_are_uniform_and_neighbours_are_uncorrelated():
    values = uniform(np.arange(-300, 300)[None, :], np.arange(-300, 300)[:, None], stream(5, 1))
    counts, _ = np.histogram(values, bins=10, range=(0, 1))
    # 36 000 per bin: one standard deviation is 180.
    assert np.abs(counts - 36_000).max() < 5 * 180
    for one, other in ((values[:, 1:], values[:, :-1]), (values[1:], values[:-1]), (values[1:, 1:], values[:-1, :-1])):
        # Over 3.6e5 pairs the correlation of independent numbers has a standard deviation of 0.0017.
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 * 0.0017


@pytest.mark.parametrize("other", [stream(6, 1), stream(5, 2), stream(5 + 2**31, 1)])
def test_other_seeds_and_uses_are_uncorrelated(other):
    places = np.arange(1000)[None, :], np.arange(100)[:, None]
    one, two = uniform(*places, stream(5, 1)), uniform(*places, other)
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 5 / np.sqrt(1e5)


def test_the_numbers_of_a_seed_never_change():
    """A phantom is identified by its seed: these numbers may only change together with the generator's name."""
    assert draws(3, stream(7, 400)) == pytest.approx([0.75496966, 0.18202877, 0.44328415], abs=1e-7)


def test_noise_takes_the_lattice_s_values_at_its_points_and_stays_between_them():
    columns, rows = np.arange(-3.0, 9)[None, :], np.arange(-5.0, 6)[:, None]
    key = stream(1, 1)
    np.testing.assert_array_equal(value_noise(columns, rows, key), uniform(as_cells(columns), as_cells(rows), key))
    u, v = axes(200, 150)
    noise = value_noise(u, v, key)
    corners = (
        uniform(as_cells(np.floor(u)), as_cells(np.floor(v)), key),
        uniform(as_cells(np.floor(u)) + 1, as_cells(np.floor(v)), key),
        uniform(as_cells(np.floor(u)), as_cells(np.floor(v)) + 1, key),
        uniform(as_cells(np.floor(u)) + 1, as_cells(np.floor(v)) + 1, key),
    )
    assert (noise >= np.min(corners, axis=0) - 1e-6).all()
    assert (noise <= np.max(corners, axis=0) + 1e-6).all()
    # Halfway between four points it is their mean.
    half = value_noise(columns + 0.5, rows + 0.5, key)
    lattice = uniform(as_cells(np.arange(-3.0, 10)[None, :]), as_cells(np.arange(-5.0, 7)[:, None]), key)
    means = (lattice[:-1, :-1] + lattice[1:, :-1] + lattice[:-1, 1:] + lattice[1:, 1:]) / 4
    np.testing.assert_allclose(half, means, atol=1e-6)


def test_a_grid_and_single_positions_give_the_same_noise():
    u, v = axes(61, 47)
    spread = np.broadcast_to(v, (47, 61)).copy()
    np.testing.assert_array_equal(value_noise(u, v, stream(1, 2)), value_noise(u, spread, stream(1, 2)))
