"""Random numbers that depend on the position only."""

import numpy as np
import pytest

from melanoma_infer.phantom.noise import Discs, discs, draws, smooth, stream, sway, uniform, wave


def places(side: int, step: float = 0.37) -> tuple[np.ndarray, np.ndarray]:
    u, v = np.meshgrid(np.arange(side) * step, np.arange(side) * step)
    return u.ravel().astype(np.float32), v.ravel().astype(np.float32)


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


def test_a_wave_takes_the_lattice_s_values_at_whole_numbers_and_their_mean_halfway():
    key, columns = stream(1, 1), np.arange(-3, 9)
    lattice = uniform(np.arange(-3, 10), np.zeros(1, np.int64), key)
    np.testing.assert_allclose(wave(columns.astype(float), key), lattice[:-1], atol=1e-7)
    np.testing.assert_allclose(wave(columns + 0.5, key), (lattice[:-1] + lattice[1:]) / 2, atol=1e-7)


@pytest.mark.parametrize("noise", [smooth, sway], ids=["smooth", "sway"])
def test_noise_has_its_mean_is_smooth_and_differs_between_keys(noise):
    u, v = places(90)
    values, others = noise(u, v, stream(1, 2)), noise(u, v, stream(1, 3))
    middle = 0.5 if noise is smooth else 0.0
    assert values.mean() == pytest.approx(middle, abs=0.12)
    assert 0.07 < values.std() < 0.3
    assert abs(np.corrcoef(values, others)[0, 1]) < 0.2
    near = noise(u + np.float32(0.02), v, stream(1, 2))
    assert np.abs(near - values).max() < 0.1


def test_noise_depends_on_the_place_and_not_on_the_places_beside_it():
    u, v = places(40)
    some = np.arange(0, len(u), 7)
    for values in (smooth, sway):
        np.testing.assert_array_equal(values(u[some], v[some], stream(1, 2)), values(u, v, stream(1, 2))[some])


@pytest.mark.parametrize(
    "form", [Discs(12, 4.4, 0.9), Discs(14, 5.5, 0.5, jitter=0.2, vary=0.5), Discs(20, 6, 1, vary=0)]
)
def test_discs_cover_the_part_of_the_area_that_they_say(form):
    side = np.arange(0.25, 1200, 1.7)
    x, y = (axis.ravel().astype(np.float32) for axis in np.meshgrid(side, side))
    assert discs(x, y, stream(2, 5), form).mean() == pytest.approx(form.covered, rel=0.04)
