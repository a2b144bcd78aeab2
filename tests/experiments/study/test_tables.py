"""Comparisons and tables, checked by hand and by simulation."""

import csv
import dataclasses
import io
import re

import numpy as np
import pytest
from scipy import stats
from synthetic_study import result

from kerasrestart.experiments.study import origin_tables, tables
from kerasrestart.experiments.study.comparison import NO_DIFFERENCE, compare
from kerasrestart.experiments.study.published import PUBLISHED

# Outcomes of the control 0.70, 0.72, 0.74; of `he` 0.72, 0.75, 0.78: differences of 2, 3 and 4
# points, so mean 3, deviation 1, standard error 1/sqrt(3), t = 5.196; t(0.975, 2) = 4.303.
RUNS = [
    *(result("none", s, (0.6, 0.70 + 0.02 * s)) for s in range(3)),
    *(result("he", s, (0.6, 0.72 + 0.03 * s)) for s in range(3)),
]


def rows(table):
    return {row[0]: row for row in table.rows}


def data(table):
    return list(csv.DictReader(io.StringIO(table.to_csv())))


def test_differences_are_those_computed_by_hand():
    (group,) = compare(RUNS)
    control, he = group.arms
    assert control.verdict == "control"
    assert (control.summary.mean, control.summary.deviation) == pytest.approx((72, 2))
    assert (he.difference.mean, he.difference.deviation) == pytest.approx((3, 1))
    assert (he.difference.low, he.difference.high) == pytest.approx((0.516, 5.484), abs=1e-3)
    assert he.difference.p == pytest.approx(0.0351, abs=1e-4)
    assert he.verdict == "better"
    table = tables.differences([group])
    assert table.header == (
        *("arm", "verdict", "mean", "last epoch", "pairs"),
        *("difference", "95% interval", "p after Holm"),
    )
    assert float(data(table)[1]["p"]) == pytest.approx(0.0351, abs=1e-4)
    (_, row) = table.rows
    assert row == (
        *("he", "better", "75.00 ± 3.00", "75.00 ± 3.00", "3"),
        *("+3.00", "+0.52 to +5.48", "0.035"),
    )


def test_verdicts_use_holms_correction_over_the_arms_of_a_model():
    more = [result(arm, s, (0.6, 0.72 + 0.03 * s)) for arm in ("uniform",) for s in range(3)]
    other_model = [result(arm, s, (0.6, 0.5), model="b") for arm in ("none", "he") for s in (0, 1)]
    groups = compare([*RUNS, *more, *other_model])
    he = groups[0].arms[1]
    assert he.adjusted_p == pytest.approx(2 * he.difference.p)
    assert he.verdict == NO_DIFFERENCE
    assert "no significant difference from the control with 3 seeds: +3.00 points" in he.sentence()
    assert "p = 0.07 after Holm" in he.sentence()


# Differences of -1, 0, 1 and 2 points over 1.29: their deviation is 1.
FOUR = [
    *(result("none", s, (0.6, 0.70)) for s in range(4)),
    *(result("he", s, (0.6, 0.70 + 0.01 * (s - 1) / 1.6667**0.5)) for s in range(4)),
]


def test_seeds_needed_are_the_fewest_with_the_power_by_simulation():
    uniform = [result("uniform", s, (0.6, 0.70 + 0.001 * s)) for s in range(4)]
    (_, he, _) = compare([*FOUR, *uniform])[0].arms
    assert he.difference.deviation == pytest.approx(1, abs=1e-3)
    needed = re.search(r"(\d+) seeds would be needed to find a true difference", he.sentence())
    assert int(needed[1]) == he.seeds_needed > 10  # 10 are enough without a correction
    assert "at a level of 5% / 2, Holm's first and strictest step." in he.sentence()
    powers = {n: simulated_power(n, 0.025) for n in (he.seeds_needed - 1, he.seeds_needed)}
    assert powers[he.seeds_needed - 1] < 0.8 < powers[he.seeds_needed]


def test_fewer_than_four_seeds_give_no_number_of_seeds_needed():
    kept = [one for one in FOUR if one.cell.seed < 3]
    (_, he) = compare(kept)[0].arms
    assert he.verdict == NO_DIFFERENCE
    assert he.seeds_needed is None
    assert "seeds would be needed" not in he.sentence()
    assert compare(FOUR)[0].arms[1].seeds_needed == 10


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 5.0])
@pytest.mark.parametrize("place", [0, 1, "last"])
def test_accuracies_that_are_not_between_0_and_1_are_refused_with_the_run(value, place):
    if place == "last":
        bad = result("he", 7, (0.5, 0.6), last=(0.5, value))
    else:
        bad = result("he", 7, tuple(value if n == place else 0.6 for n in range(2)), (0.6, 0.6))
    with pytest.raises(ValueError, match=r"run mininet-he-s7 must be between 0 and 1: .*Received"):
        compare([*RUNS, bad])


def test_where_no_arm_is_better_the_largest_excluded_gain_comes_first():
    (group,) = compare(FOUR)
    high = group.arms[1].difference.high
    assert group.sentences()[0] == (
        "No arm is significantly better than the control; every 95% interval excludes a gain above "
        f"{high:.2f} points."
    )
    worse = [result("he", s, (0.6, 0.5 + 0.001 * s)) for s in range(4)]
    assert "every 95% interval excludes any gain" in compare([*FOUR[:4], *worse])[0].sentences()[0]
    assert not any("No arm" in sentence for sentence in compare(RUNS)[0].sentences())


def simulated_power(n, level):
    """Share of t tests of `n` differences, with a mean of 1 deviation, that are significant."""
    differences = np.random.default_rng(n).normal(1, 1, (200_000, n))
    return np.mean(stats.ttest_1samp(differences, 0, axis=1).pvalue < level)


def test_one_arm_alone_needs_no_correction():
    (_, he) = compare(FOUR)[0].arms
    assert (he.verdict, he.comparisons) == (NO_DIFFERENCE, 1)
    assert he.sentence().endswith("with a power of 80% at a level of 5%.")


@pytest.mark.parametrize(
    ("outcomes", "verdict", "says"),
    [
        ({0: 0.60, 1: 0.63, 2: 0.65}, "worse", "is worse than the control: -9.33 points"),
        ({0: 0.70, 1: 0.72, 2: 0.74}, "equal", "is equal to the control for each of 3 seeds"),
        ({0: 0.71, 1: 0.73, 2: 0.75}, NO_DIFFERENCE, "+1.00 points for each of them"),
        ({1: 0.8}, NO_DIFFERENCE, "with 1 seed: +8.00 points; one seed does not show"),
        ({7: 0.8}, "unknown", "no seed in common with the control"),
    ],
)
def test_sentences_claim_no_more_than_the_seeds_show(outcomes, verdict, says):
    arm = [result("he", seed, (0.6, value)) for seed, value in outcomes.items()]
    he = compare([*RUNS[:3], *arm])[0].arms[1]
    assert he.verdict == verdict
    assert says in he.sentence()


def test_the_control_comes_first_and_models_stay_together():
    runs = [
        result(arm, seed, (0.6, 0.7), model=model)
        for seed in (0, 1)
        for model in ("b", "a")
        for arm in ("he", "none", "clone")
    ]
    groups = compare(runs)
    assert [group.name for group in groups] == ["b", "a"]
    assert [arm.name for arm in groups[0].arms] == ["none", "he", "clone"]


def test_by_initialisation_has_models_as_columns_and_arms_as_rows():
    other = [result("none", 0, (0.5, 0.55), model="alexnet")]
    table = tables.by_initialisation(compare([*RUNS, *other]))
    assert table.header == ("arm", "mininet", "alexnet")
    assert rows(table) == {
        "baseline": ("baseline", "60.00 ± 0.00 (3)", "50.00 (1)"),
        "none": ("none", "72.00 ± 2.00 (3)", "55.00 (1)"),
        "he": ("he", "75.00 ± 3.00 (3)", ""),
    }
    found = data(table)
    assert [row["arm"] for row in found] == ["baseline", "none", "he", "baseline", "none"]
    assert float(found[1]["standard deviation"]) == pytest.approx(2)
    assert found[4]["standard deviation"] == ""


def test_by_restart_has_a_column_for_each_round():
    short = [result("he", 9, (0.6,))]  # a run that diverged makes fewer
    table = tables.by_restart(compare([result("none", 9, (0.6, 0.7, 0.8)), *short]))
    assert table.header == ("arm", "n", "baseline", "restart 1", "restart 2")
    assert table.rows == [
        ("none", "1", "60.00", "70.00", "80.00"),
        ("he", "1", "60.00", "", ""),
    ]
    assert [row["round"] for row in data(table)] == [
        *("baseline", "restart 1", "restart 2"),
        "baseline",
    ]


def test_a_sweep_has_its_own_column():
    runs = [
        result(arm, 0, (0.6, 0.7), variation=f"fraction={f}")
        for f in (0.1, 0.2)
        for arm in ("none", "he")
    ]
    groups = compare(runs)
    assert tables.by_restart(groups).header[:2] == ("variation", "arm")
    two = compare([*runs, result("none", 0, (0.6, 0.7), model="b", variation="fraction=0.1")])
    assert tables.by_restart(two).header[:3] == ("model", "variation", "arm")
    assert [row[:2] for row in tables.by_initialisation(groups).rows] == [
        *(("fraction=0.1", "baseline"), ("fraction=0.1", "none"), ("fraction=0.1", "he")),
        *(("fraction=0.2", "baseline"), ("fraction=0.2", "none"), ("fraction=0.2", "he")),
    ]
    assert tables.differences(groups).header[:3] == ("variation", "arm", "verdict")


def test_all_rows_in_markdown_have_the_same_number_of_cells():
    table = tables.by_restart(compare(RUNS))
    lines = table.to_markdown().splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert len({len(line) for line in lines}) == 1
    assert all(set(cell.strip()) <= set("-:") and "-" in cell for cell in lines[1].split("|")[1:-1])


def test_runs_with_other_numbers_of_epochs_are_found():
    (group,) = compare([*RUNS, result("early", 0, (0.6,))])
    assert group.budgets == {(4, 1): ["none", "he"], (2, 0): ["early"]}


def test_published_results_stand_beside_those_of_the_study():
    groups = compare(
        [
            *(result("none", s, (0.75, 0.76, 0.76, 0.76)) for s in range(2)),
            *(result("uniform", s, (0.75, 0.74, 0.76, 0.78 + 0.01 * s)) for s in range(2)),
            *(result("none", s, (0.3, 0.4), model="resnet20") for s in range(2)),
        ]
    )
    paper = PUBLISHED["han_zhang"]
    table = tables.by_initialisation(groups, paper)
    assert table.header == ("arm", "mininet", "Han and Zhang (difference)", "resnet20")
    assert rows(table)["baseline"][2] == "75.66 (-0.66)"
    assert rows(table)["uniform"][1:3] == ("78.50 ± 0.71 (2)", "79.66 (-1.16)")
    assert rows(table)["none"][2] == ""
    assert data(table)[2]["published"] == "79.66"
    table = tables.by_restart(groups, paper)
    place = [row[1] for row in table.rows].index("uniform") + 1
    assert table.rows[place] == (
        *("mininet", "uniform, Han and Zhang (difference)", "1"),
        *("75.66 (-0.66)", "74.20 (-0.20)", "75.79 (+0.21)", "79.66 (-1.16)"),
    )


def test_gains_by_test_epochs_are_those_computed_by_hand():
    # Validation chooses 0.72 after a baseline of 0.70; by test epochs 0.75 follows 0.71.
    one = result("uniform", 0, (0.70, 0.72))
    other = result("uniform", 1, (0.70, 0.71))
    one.history["test_accuracy"] = (0.70, 0.71, 0.75, 0.72)
    other.history["test_accuracy"] = (0.70, 0.69, 0.71, 0.70)
    (row,) = origin_tables.by_test_epoch(compare([one, other])).rows
    assert row == ("uniform", "2", "+1.50", "+2.50", "+1.00 to +4.00")
    assert not origin_tables.by_test_epoch(compare(RUNS)).rows
    cell = dataclasses.replace(one.cell, outcome="online")
    assert not origin_tables.by_test_epoch(compare([dataclasses.replace(one, cell=cell)])).rows


def test_selected_filters_are_described_as_computed_by_hand():
    def event(*layers):
        names = ("a", "b")
        return {
            "layers": {
                name: {"filters": filters, "scores": scores}
                for name, (filters, scores) in zip(names, layers, strict=True)
            }
        }

    one = result("uniform", 0, (0.70, 0.72, 0.73))
    one.record["events"][:] = [
        event(([0], [1.0, 3.0, 8.0]), ([1, 2], [6.0, 1.0, 2.0, 3.0])),  # 1 of 4; 1.5 of 3
        event(([0], [1.0, 1.0, 4.0]), ([0, 2], [1.0, 3.0, 1.0, 3.0])),  # 1 of 2; 1 of 2
    ]
    (row,) = origin_tables.restarted(compare([one])).rows
    assert row == ("uniform", "1", "3.0", "0.38", "0.50", "67%")
