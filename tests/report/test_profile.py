"""The printed limits of a profile."""

from __future__ import annotations

import mixform as mf
from mixform.inference.profile.profile import profile
from mixform.report.profile import ProfileReport

EXPECTED = """\
Profile likelihood intervals of the deviance (ML), 95 %:

                       estimate   lower   upper
 sd(Batch: Intercept)     0.000   0.000   2.084
 sigma                    3.653   2.893   4.816
 Intercept                5.666   4.313   7.018

Note: sd(Batch: Intercept): lower: one-sided: the estimate is zero"""


def report():
    result = mf.fit("Yield ~ 1 + (1|Batch)", mf.datasets.load("Dyestuff2"), method="ML")
    return ProfileReport(profile(result._fit))


def test_limits_are_printed_with_their_reasons():
    printed = [" ".join(line.split()) for line in str(report()).splitlines()]
    assert printed == [" ".join(line.split()) for line in EXPECTED.splitlines()]


def test_html_and_latex_have_the_same_rows():
    summary = report().summary(0.9)
    assert "90 %" in summary.as_text()
    assert "<td>" in summary.as_html()
    assert "sd(Batch: Intercept)" in summary.as_html()
    assert "sd(Batch: Intercept)" in summary.as_latex()
    assert "<table" in report()._repr_html_()


def test_the_report_answers_for_the_profile():
    shown = report()
    assert shown.parameters == ("sd(Batch: Intercept)", "sigma", "Intercept")
    assert shown.cutoff == shown.profile.cutoff
    assert shown.conf_int().equals(shown.profile.conf_int())
    assert shown.to_frame().equals(shown.profile.to_frame())
    assert shown.zeta("sigma").equals(shown.profile.zeta("sigma"))
    assert len(shown.density("sigma", 5)) == 5
    assert set(shown.pairs("sigma", "Intercept")["along"]) == {"sigma", "Intercept"}
    assert shown.curve("sigma") is shown.profile.curve("sigma")
