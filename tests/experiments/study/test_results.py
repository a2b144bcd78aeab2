"""Outcomes of a study's runs."""

import dataclasses
import json
import math

import pytest
from synthetic_study import result

from kerasrestart.experiments.study.comparison import compare
from kerasrestart.experiments.study.results import Cell, common_settings, load_cell


def written(folder, one):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(one.record))
    (folder / "history.csv").write_text("epoch,val_accuracy\n0,0.25\n1,\n2,nan\n")
    return folder


def test_outcome_is_test_accuracy_at_the_best_validation_after_the_baseline():
    # The baseline is best on validation and restart 3 is best on the test set: neither counts.
    one = result("he", 0, test=(0.9, 0.5, 0.6, 0.8), validation=(0.9, 0.6, 0.7, 0.65))
    assert one.chosen == 0.6
    assert one.validation == 0.7
    assert one.by_round == (0.9, 0.5, 0.6, 0.8)


def test_lowest_loss_is_best_and_nan_is_worst():
    losses = (0.1, math.nan, 2.0, 1.5)
    one = result("he", 0, test=(0.9, 0.5, 0.6, 0.8), validation=losses, monitor="val_loss")
    assert one.chosen == 0.8


def test_first_round_wins_a_tie():
    assert result("he", 0, test=(0.1, 0.2, 0.3), validation=(0.5, 0.5, 0.5)).chosen == 0.2


def test_last_is_the_accuracy_of_the_last_epoch():
    assert result("he", 0, test=(0.1, 0.9, 0.2), last=(0.1, 0.3, 0.15)).last == 0.15


def test_outcome_of_shuffled_classes_is_the_mean_over_tasks_after_the_first():
    one = result("he", 0, test=(0.9, 0.5, 0.7), tasks="shuffled_classes")
    assert one.chosen == pytest.approx(0.6)
    assert one.validation is None


def test_outcome_of_random_labels_is_training_accuracy():
    one = result(
        "he", 0, (0.1, 0.1, 0.1), train=(0.9, 0.8, 0.6), tasks="random_labels", monitor="accuracy"
    )
    assert one.chosen == pytest.approx(0.7)
    assert (one.by_round, one.last) == ((0.9, 0.8, 0.6), 0.6)
    assert one.measure == "training accuracy"


def outcome_of(one, outcome):
    return dataclasses.replace(one, cell=dataclasses.replace(one.cell, outcome=outcome))


def test_online_outcome_is_the_mean_training_accuracy_over_all_epochs():
    one = outcome_of(result("he", 0, (0.1, 0.5), (0.2, 0.4), tasks="shuffled_classes"), "online")
    assert one.chosen == pytest.approx((0.19 + 0.2 + 0.39 + 0.4) / 4)  # the curve of the history
    assert one.tuning_score == one.chosen
    assert "training accuracy" in one.outcome
    assert not one.is_model_selected
    assert one.validation is None


def test_final_outcome_is_the_accuracy_at_the_last_epoch():
    one = outcome_of(result("he", 0, (0.1, 0.9), (0.2, 0.4), last=(0.1, 0.3)), "final")
    assert (one.chosen, one.outcome) == (0.3, "test accuracy at the last epoch")
    assert one.tuning_score == 0.4  # of the history's last epoch
    assert one.tuning_measure == "validation accuracy at the last epoch"


def test_values_are_tuned_by_validation_and_never_by_the_test_set():
    assert result("he", 0, (0.9, 0.5, 0.6), validation=(0.9, 0.6, 0.7)).tuning_score == 0.7
    one = result("he", 0, (0.9, 0.5, 0.6), (0.9, 0.6, 0.7), tasks="shuffled_classes")
    assert one.tuning_score == pytest.approx(0.65)
    assert one.tuning_measure.startswith("mean validation accuracy")


def test_class_subsets_are_measured_in_training():
    one = result("he", 0, (None, None), (0.1, 0.1), train=(0.9, 0.6), tasks="class_subsets")
    assert (one.by_round, one.last) == ((0.9, 0.6), 0.6)


def test_of_class_subsets_only_the_hard_tasks_count():
    curve, train = (0.2, 1.0, 0.3, 1.0, 0.4), (0.5, 1.0, 0.6, 1.0, 0.8)
    one = result("he", 0, [None] * 5, curve, train=train, tasks="class_subsets", epochs=1)
    assert one.chosen == pytest.approx(0.7)
    assert outcome_of(one, "online").chosen == pytest.approx(0.3)
    assert "hard tasks" in outcome_of(one, "online").outcome


def test_a_run_without_a_restart_has_the_outcome_of_its_baseline():
    assert result("he", 0, test=(0.4,)).chosen == 0.4
    assert result("he", 0, test=(0.4,), tasks="shuffled_classes").chosen == 0.4


def test_a_run_is_read_from_its_folder(tmp_path):
    one = result("he", 3, test=(0.4, 0.5))
    found = load_cell(written(tmp_path / "run", one), Cell("mininet", "he", 3))
    assert found.cell.name == "mininet-he-s3"
    assert found.chosen == 0.5
    assert found.history["epoch"] == (0, 1, 2)
    assert found.history["val_accuracy"][0] == 0.25
    assert all(math.isnan(value) for value in found.history["val_accuracy"][1:])


def test_an_incomplete_run_is_none(tmp_path):
    assert load_cell(tmp_path / "nowhere", Cell("mininet", "he", 0)) is None
    one = result("he", 0, test=(0.4, 0.5))
    one.record["finished"] = None
    assert load_cell(written(tmp_path / "run", one), Cell("mininet", "he", 0)) is None


def test_a_record_without_a_table_is_refused(tmp_path):
    one = result("he", 0, test=(0.4, 0.5))
    one.record["table"].clear()
    with pytest.raises(ValueError, match="without a table"):
        load_cell(written(tmp_path / "run", one), Cell("mininet", "he", 0))


def test_common_settings_are_equal_in_all_runs():
    runs = [result("he", 0, (0.1,)), result("he", 1, (0.1,)), result("xavier", 0, (0.1,))]
    common = common_settings(runs)
    assert common["model"] == "mininet"
    assert "init" not in common
    assert "seed" not in common
    assert common_settings(runs[:1])["seed"] == 0


def test_holms_correction_counts_all_variations_of_a_sweep():
    gains = {"fraction=0.1": (0.010, 0.012, 0.013), "fraction=0.2": (0.001, 0.004, -0.002)}
    runs = [
        result(arm, seed, (0.5, 0.6 + (arm == "he") * gain), variation=variation)
        for variation, of_seeds in gains.items()
        for seed, gain in enumerate(of_seeds)
        for arm in ("none", "he")
    ]
    first, second = (group.arms[1] for group in compare(runs))
    assert (first.comparisons, second.comparisons) == (2, 2)
    assert first.adjusted_p == pytest.approx(2 * first.difference.p)
    assert second.adjusted_p == pytest.approx(max(second.difference.p, first.adjusted_p))
    # Another model is corrected separately.
    others = (result(arm, 0, (0.1,), model="alexnet") for arm in ("none", "he"))
    groups = compare([*runs[:6], *others])
    assert [group.arms[1].comparisons for group in groups] == [1, 0]
