"""The scan: generalized least squares with each marker in X, V held."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference import marker_products
from mixform.inference.marker_products import SharedFactor
from mixform.inference.residual_structure import row_covariance


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
@pytest.mark.parametrize("s", [12, 45], ids=["one by one", "shared factor"])
def test_each_marker_is_tested_as_a_column_of_X(s, known, weights, backend):
    frame, markers, codes = data(s=s)
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


def test_many_markers_share_a_factor_and_few_are_solved_one_by_one(monkeypatch):
    frame, markers, _ = data(s=60)
    markers.iloc[3, 5] = np.nan
    markers["flat"] = 1.0
    options = {"relationship": {"animal": relationship(markers.iloc[:, 10:40])}}
    for formula in ("y ~ x + (1 | animal)", "y ~ 0 + x + (x | animal)"):
        m = mf.fit(formula, frame, weights="w", **options)
        shared = mf.scan(m, markers, by="animal")
        with monkeypatch.context() as patch:
            patch.setattr(SharedFactor, "worthwhile", lambda *_: False)
            solved = mf.scan(m, markers, by="animal")
        pd.testing.assert_frame_equal(shared, solved, rtol=1e-9)
        with monkeypatch.context() as patch:
            patch.setattr(marker_products, "ENTRIES", 1)
            small = mf.scan(m, markers, by="animal")
        pd.testing.assert_frame_equal(shared, small, rtol=1e-9)


@pytest.mark.parametrize("s", [12, 75], ids=["one by one", "shared factor"])
@pytest.mark.parametrize("formula", ["y ~ x + (1 | animal)", "y ~ x", "y ~ x + (1|h)"])
def test_residuals_may_have_a_structure(formula, s):
    frame, markers, codes = data(s=s)
    frame["time"] = frame.groupby("animal").cumcount()
    frame["h"] = np.arange(len(frame)) % 6
    related = {"relationship": {"animal": relationship(markers)}}
    m = mf.fit(
        formula,
        frame,
        weights="w",
        residual="ar1(time | animal)",
        **(related if "animal" in formula else {}),
    )
    R = row_covariance(m._fit, np.arange(len(frame)))
    V = R + 0.0
    if "(" in formula:
        K = relationship(markers).to_numpy() if "animal" in formula else np.eye(6)
        at = codes if "animal" in formula else frame["h"].to_numpy()
        V += m.varcorr["vcov"].iloc[0] / m.sigma**2 * K[np.ix_(at, at)]
    inverse = np.linalg.inv(V)
    if "animal" in formula:
        found = mf.scan(m, markers, by="animal")
    else:
        found = mf.scan(m, markers.to_numpy()[codes])
    for j in range(s):
        X = np.column_stack([m.design.X, markers.to_numpy()[codes, j]])
        C = np.linalg.inv(X.T @ inverse @ X)
        beta = C @ X.T @ inverse @ frame["y"]
        rest = frame["y"] - X @ beta
        sigma2 = rest @ inverse @ rest / (len(frame) - 3)
        row = found.iloc[j]
        assert row["effect"] == pytest.approx(beta[2])
        assert row["se"] == pytest.approx(np.sqrt(sigma2 * C[2, 2]))


def test_markers_in_a_model_without_random_effects_are_columns_of_X():
    frame, markers, codes = data(s=3)
    m = mf.fit("y ~ x", frame)
    found = mf.scan(m, markers.to_numpy()[codes])
    frame["g"] = markers["snp1"].to_numpy()[codes]
    both = mf.fit("y ~ x + g", frame)
    assert found.loc[1, "effect"] == pytest.approx(both.params["g"])
    assert found.loc[1, "se"] == pytest.approx(both.bse["g"])
    assert found.loc[1, "p_value"] == pytest.approx(both.pvalues["g"])


def test_a_marker_does_not_depend_on_its_origin():
    frame, markers, _ = data(s=45)
    m = mf.fit("y ~ x + (1 | animal)", frame)
    expected = mf.scan(m, markers, by="animal")
    found = mf.scan(m, 1e3 - 2.0 * markers, by="animal")
    np.testing.assert_allclose(found["effect"], -0.5 * expected["effect"], rtol=1e-7)
    np.testing.assert_allclose(found["p_value"], expected["p_value"], rtol=1e-7)


@pytest.mark.parametrize("missing", [None, 5, -9])
def test_genotypes_of_any_kind_are_read_alike(missing):
    frame, markers, codes = data(s=45)
    holes = markers.copy()
    if missing is not None:
        holes.iloc[[1, 7], [3, 4]] = missing
    whole = holes.astype("int8")
    m = mf.fit("y ~ x + (1 | animal)", frame)
    expected = mf.scan(m, holes.replace({missing: np.nan}), by="animal")
    ids = whole.index.to_numpy()
    kept = whole.rename_axis("id").reset_index()
    array = whole.to_numpy()
    masked = np.ma.masked_equal(array, missing) if missing else array
    of_animals = {
        "int8 frame": (whole, None, missing),
        "array": (array, ids, missing),
        "column of labels": (kept, "id", missing),
        "polars": (pl.from_pandas(kept), "id", missing),
        "polars and ids": (pl.from_pandas(whole), ids, missing),
        "nullable": (whole.astype("Int8").replace(missing or 99, pd.NA), None, None),
        "masked": (masked, ids, None),
    }
    for kind, (given, labels, absent) in of_animals.items():
        found = mf.scan(m, given, by="animal", ids=labels, missing=absent)
        np.testing.assert_allclose(found, expected, rtol=1e-9, err_msg=kind)
        assert len(found.attrs["notes"]) == (missing is not None)
    by_row = mf.scan(m, array[codes], missing=missing)
    np.testing.assert_allclose(by_row.iloc[0], expected.iloc[0], rtol=1e-9)


def test_an_array_has_a_row_for_each_row_of_the_data():
    frame, markers, codes = data(s=5)
    G = markers.to_numpy()[codes]
    m = mf.fit("y ~ x + (1 | animal)", frame)
    some = mf.fit("y ~ x + (1 | animal)", frame.assign(x=frame["x"].mask(G[:, 0] > 1)))
    assert some.nobs < m.nobs
    used = some._fit.design.used
    found = mf.scan(some, G)
    expected = mf.scan(some, pd.DataFrame(G[used], index=frame.index[used]))
    pd.testing.assert_frame_equal(found, expected)


def test_notes_say_what_was_not_tested():
    frame, markers, _ = data(s=3)
    m = mf.fit("y ~ x + (1 | animal)", frame)
    holes = markers.assign(flat=1, gone=np.nan)
    holes.iloc[0, 0] = np.nan
    found = mf.scan(m, holes, by="animal")
    assert found.loc[["flat", "gone"]].isna().all(axis=None)
    assert found.attrs["notes"] == (
        "2 markers are constant or a combination of the columns of X: flat, gone.",
        "41 missing genotypes count as the mean of the marker.",
    )


def test_whole_numbers_are_not_copied_as_floats():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"y": rng.normal(size=60), "g": np.arange(60) % 20})
    m = mf.fit("y ~ 1 + (1 | g)", frame)
    markers = rng.integers(0, 3, (60, 100_000), dtype=np.int8)
    tracemalloc.start()
    mf.scan(m, markers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * 8 * markers.size  # 48 MB as floats


def test_what_a_scan_refuses():
    frame, markers, _ = data()
    m = mf.fit("y ~ x + (1 | animal)", frame)
    with pytest.raises(InferenceError, match="'a0' has no genotypes"):
        mf.scan(m, markers.drop("a0"), by="animal")
    with pytest.raises(InferenceError, match="not numeric"):
        mf.scan(m, markers.astype(str).replace("0.0", "x"), by="animal")
    with pytest.raises(InferenceError, match="is a dict, not a frame"):
        mf.scan(m, {"snp": [1]})
    with pytest.raises(InferenceError, match=r"do not say which level(.|\n)*ids="):
        mf.scan(m, markers.to_numpy(), by="animal")
    with pytest.raises(InferenceError, match="40 rows, the data have 70"):
        mf.scan(m, markers.to_numpy())
    with pytest.raises(InferenceError, match=r"shape \(40,\)"):
        mf.scan(m, markers.to_numpy()[:, 0])
    with pytest.raises(InferenceError, match="39 ids for 40 rows"):
        mf.scan(m, markers.to_numpy(), by="animal", ids=range(39))
    with pytest.raises(InferenceError, match=r"no column 'snp'(.|\n)*Did you mean"):
        mf.scan(m, markers, by="animal", ids="snp")
    with pytest.raises(InferenceError, match="no column 'snp'"):
        mf.scan(m, pl.from_pandas(markers), by="animal", ids="snp")
    with pytest.raises(InferenceError, match="'a0' has more than one row"):
        mf.scan(m, pd.concat([markers, markers.iloc[:1]]), by="animal")
    with pytest.raises(InferenceError, match="not numeric"):
        mf.scan(m, markers.to_numpy().astype(str), by="animal", ids=markers.index)


def test_infinite_genotypes_are_refused_by_name():
    data = pd.DataFrame({"y": [1.0, 3.0, 2.0, 5.0, 4.0]})
    m = mf.fit("y ~ 1", data)
    markers = pd.DataFrame({"a": [0.0, 1.0, 2.0, 1.0, 0.0], "b": [0, np.inf, 1, 2, 0]})
    with pytest.raises(InferenceError, match="marker 'b' has infinite values"):
        mf.scan(m, markers)


def test_a_row_without_genotypes_is_named_plainly():
    data = pd.DataFrame({"y": [1.0, 3.0, 2.0, 5.0, 4.0]})
    m = mf.fit("y ~ 1", data)
    with pytest.raises(InferenceError, match=r"^'4' has no genotypes"):
        mf.scan(m, pd.DataFrame({"a": [0.0, 1.0, 2.0, 1.0]}))
