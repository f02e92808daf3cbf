"""Figures show the numbers that the tables hold."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

import mixform as mf
from mixform.errors import InferenceError, MixformError

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def no_window():
    from matplotlib import pyplot

    matplotlib.use("Agg")
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def sleep():
    data = mf.datasets.load("sleepstudy")
    return mf.fit("Reaction ~ Days + (Days | Subject)", data)


def test_residuals_stand_at_their_fitted_values(sleep):
    ax = sleep.plot.residuals("pearson")
    points = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(points[:, 0], sleep.fittedvalues)
    np.testing.assert_allclose(points[:, 1], sleep.residuals("pearson"))


def test_normal_plot_orders_the_residuals(sleep):
    points = np.asarray(sleep.plot.qq("scaled").collections[0].get_offsets())
    np.testing.assert_allclose(points[:, 1], np.sort(sleep.residuals("scaled")))
    np.testing.assert_allclose(points[:, 0], -points[::-1, 0], atol=1e-12)


def test_caterpillar_has_a_panel_for_each_coefficient(sleep):
    axes = sleep.plot.caterpillar()
    assert [ax.get_title() for ax in axes] == ["Subject: Intercept", "Subject: Days"]
    points = np.asarray(axes[1].collections[1].get_offsets())
    table = sleep.caterpillar()
    expected = table.loc[table["term"] == "Days", "estimate"]
    np.testing.assert_allclose(points[:, 0], expected)


def test_intervals_of_subjects_stand_in_the_order_of_the_table():
    data = mf.datasets.load("sleepstudy").iloc[3::2]
    fits = mf.lm_list("Reaction ~ Days | Subject", data)
    axes = fits.plot.intervals(0.9)
    assert [ax.get_title() for ax in axes] == ["Subject: Intercept", "Subject: Days"]
    for ax, name in zip(axes, fits.coefficients, strict=True):
        points = np.asarray(ax.collections[1].get_offsets())
        np.testing.assert_allclose(points[:, 0], fits.coefficients[name])
        np.testing.assert_allclose(points[:, 1], np.arange(len(fits.coefficients)) + 1)
        low = [line[0, 0] for line in ax.collections[0].get_segments()]
        limits = fits.conf_int(0.9).xs(name, level="coefficient")
        np.testing.assert_allclose(low, limits["lower"])
        assert ax.lines[0].get_xdata()[0] == pytest.approx(points[:, 0].mean())


def test_residuals_of_subjects_are_those_of_their_regressions():
    fits = mf.lm_list("Reaction ~ Days | Subject", mf.datasets.load("sleepstudy"))
    points = np.asarray(fits.plot.residuals().collections[0].get_offsets())
    np.testing.assert_allclose(points, np.c_[fits.fittedvalues, fits.resid])
    ordered = np.asarray(fits.plot.qq().collections[0].get_offsets())[:, 1]
    np.testing.assert_allclose(ordered, np.sort(fits.resid))


def test_profiles_are_drawn_by_zeta_density_and_pairs(sleep):
    names = ["sigma", "Days"]
    zeta = sleep.plot.profile(names)
    curve = zeta[0].lines[-1]
    found = sleep.profile(names)
    np.testing.assert_allclose(curve.get_ydata(), found.zeta("sigma"))
    density = sleep.plot.profile(names, "density")[1].lines[0]
    np.testing.assert_allclose(
        density.get_ydata(), found.density("Days")["density"], rtol=1e-6
    )
    assert sleep.plot.profile(names, "pairs").shape == (1, 1)


def test_means_stand_side_by_side_for_the_groups():
    data = mf.datasets.load("Oats")
    m = mf.fit("yield ~ Variety * C(nitro) + (1 | Block/Variety)", data)
    ax = m.plot.means("nitro", by="Variety")
    table = m.emmeans("nitro", by="Variety").conf_int()
    drawn = [c.lines[0].get_ydata() for c in ax.containers]
    np.testing.assert_allclose(np.concatenate(drawn), table["emmean"])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "Golden Rain",
        "Marvellous",
        "Victory",
    ]


def test_unknown_kind_and_nothing_to_draw_are_said(sleep):
    with pytest.raises(InferenceError, match=r"Unknown kind 'zetta'.*\n.*'zeta'"):
        sleep.plot.profile(kind="zetta")
    with pytest.raises(MixformError, match="nothing to draw"):
        mf.fit("gain ~ group", mf.datasets.load("pigs")).plot.caterpillar()


def test_missing_matplotlib_is_said(sleep, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MixformError, match=r"pip install .mixform\[plot\]"):
        sleep.plot.residuals()
