"""The scan: generalized least squares with each marker in X, V held."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixform as mf
from mixform.errors import InferenceError


def data(seed=3, m=40, n=70, s=30):
    rng = np.random.default_rng(seed)
    names = [f"a{i}" for i in range(m)]
    markers = pd.DataFrame(
        rng.binomial(2, 0.4, (m, s)).astype(float),
        index=names,
        columns=[f"snp{j}" for j in range(s)],
    )
    codes = np.concatenate([np.arange(m), rng.integers(0, m, n - m)])
    frame = pd.DataFrame({"animal": np.array(names)[codes], "x": rng.normal(size=n)})
    frame["w"] = rng.uniform(0.5, 2.0, n)
    root = rng.normal(size=m)
    frame["y"] = 2.0 + frame["x"] + root[codes] + markers["snp0"].to_numpy()[codes]
    frame["y"] += rng.normal(size=n)
    return frame, markers, codes


def relationship(markers):
    Z = markers - markers.mean()
    K = Z.to_numpy() @ Z.to_numpy().T / Z.shape[1]
    K = 0.9 * K + 0.1 * np.eye(len(K))
    return pd.DataFrame(K, index=markers.index, columns=markers.index)


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("known", [False, True])
def test_each_marker_is_tested_as_a_column_of_X(known, weights, backend):
    frame, markers, codes = data()
    K = relationship(markers)
    m = mf.fit(
        "y ~ x + (1 | animal)",
        frame,
        relationship={"animal": K},
        weights=weights,
        control={"backend": backend},
        varcomp={"animal": 0.7, "residual": 1.3} if known else None,
    )
    found = mf.scan(m, markers, by="animal")
    Sigma = m.varcorr["vcov"].tolist()
    w = np.ones(len(frame)) if weights is None else frame["w"].to_numpy()
    V = Sigma[0] * K.to_numpy()[np.ix_(codes, codes)] + Sigma[1] * np.diag(1.0 / w)
    V /= Sigma[1]
    inverse = np.linalg.inv(V)
    for name in markers:
        X = np.column_stack(
            [np.ones(len(frame)), frame["x"], markers[name].to_numpy()[codes]]
        )
        C = np.linalg.inv(X.T @ inverse @ X)
        beta = C @ X.T @ inverse @ frame["y"]
        rest = frame["y"] - X @ beta
        sigma2 = Sigma[1] if known else rest @ inverse @ rest / (len(frame) - 3)
        row = found.loc[name]
        assert row["effect"] == pytest.approx(beta[2])
        assert row["se"] == pytest.approx(np.sqrt(sigma2 * C[2, 2]))
        null = stats.norm() if known else stats.t(len(frame) - 3)
        assert row["p_value"] == pytest.approx(2.0 * null.sf(abs(row["t_value"])))


def test_rows_missing_genotypes_and_constant_markers():
    frame, markers, codes = data()
    m = mf.fit(
        "y ~ x + (1 | animal)", frame, relationship={"animal": relationship(markers)}
    )
    by_row = markers.iloc[codes].set_axis(frame.index)
    pd.testing.assert_frame_equal(
        mf.scan(m, by_row), mf.scan(m, markers, by="animal"), rtol=1e-9
    )
    holes = by_row.copy()
    holes.iloc[3, 0] = np.nan
    filled = holes.fillna(holes.mean())
    pd.testing.assert_frame_equal(mf.scan(m, holes), mf.scan(m, filled), rtol=1e-9)
    flat = by_row.assign(snp1=1.0)
    assert mf.scan(m, flat).loc["snp1"].isna().all()


def test_what_a_scan_refuses():
    frame, markers, _ = data()
    m = mf.fit("y ~ x + (1 | animal)", frame)
    with pytest.raises(InferenceError, match="'a0' has no genotypes"):
        mf.scan(m, markers.drop("a0"), by="animal")
    with pytest.raises(InferenceError, match="not a frame"):
        mf.scan(m, markers.to_numpy())
    with pytest.raises(InferenceError, match="not numeric"):
        mf.scan(m, markers.astype(str).replace("0.0", "x"), by="animal")
