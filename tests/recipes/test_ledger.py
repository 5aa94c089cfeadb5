"""One finetuning has one accuracy and one verdict, wherever they are told."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from makers import folder, small_network
from scipy import stats

import recipes
from recipes.evaluation.ledger import BETTER, NO_DIFFERENCE, WORSE, compared, ledger_table, training_outcome, verdict
from recipes.evaluation.selection import Candidates, Score
from recipes.training.fit import Fitted


def scored(right, loss=1.0, weights=None):
    n = len(right)
    return Score(np.full(n, loss), np.asarray(right, bool), np.full(n, 1 / n) if weights is None else weights)


def fitted(start, epochs, between=(), larger=(), share=0.0, **more):
    return Fitted(history={}, best_epoch=len(epochs), start=start, candidates=Candidates(epochs, between, larger),
                  share=share, test_size=32, cut=False, images=10, epoch_seconds=1.0, **more)  # fmt: skip


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(0.01, 0.1), (-0.1, 0.2)], BETTER),
        ([(-0.1, 0.1), (0.1, 0.2)], BETTER),
        ([(-0.275, -0.025), (-0.1, 0.2)], WORSE),
        ([(-0.275, -0.025), (0.01, 0.2)], WORSE),  # fewer are right, and more likely
        ([(-0.1, 0.1), (-0.2, -0.1)], WORSE),
        ([(-0.1, 0.1), (-0.2, 0.1)], NO_DIFFERENCE),
        ([(0.01, 0.1), (-0.2, -0.1)], NO_DIFFERENCE),  # more are right, and less likely
        ([(0.0, 0.0), (0.0, 0.0)], NO_DIFFERENCE),
        ([], NO_DIFFERENCE),
    ],
)
def test_verdicts_of_paired_intervals(intervals, expected):
    assert verdict(*intervals) == expected


def test_a_loss_of_fifteen_points_is_called_worse():
    """40 images, 7 of which only the linear classifier has right, and 1 only the finetuned weights."""
    start = np.arange(40) < 33
    best = (np.arange(40) >= 7) & (np.arange(40) < 34)
    row = fitted(scored(start), (scored(best, 1.1),)).row(seconds=3.0)
    assert (row.accuracy, row.gain, row.seconds, row.epoch) == pytest.approx((27 / 40, -6 / 40, 3.0, 1))
    found = stats.bootstrap((best.astype(float) - start,), np.mean, method="percentile", random_state=0)
    np.testing.assert_allclose(row.interval, found.confidence_interval, atol=0.026)  # a step is 1/40
    assert row.interval[1] < 0 and row.verdict == WORSE and not row.kept
    assert row.note == training_outcome(row) == "significantly worse; reverted to the linear classifier"
    assert row.note in ledger_table([row])


def test_what_is_said_of_a_finetuning_follows_from_its_row():
    half, more, most = (np.arange(100) < n for n in (50, 56, 80))
    for best, loss, share, words in [
        (most, 0.5, 1.0, "significant gain; kept"),
        (half, 1.0, 0.0, "no significant gain; reverted"),
        (more, 1.0, 1.0, "significant gain; kept"),
        (np.arange(100) < 52, 1.0, 1.0, "not significant at 95 %; kept"),
        (np.arange(100) < 48, 1.0, 0.0, "no significant gain; reverted"),
        (most, 1.5, 0.0, "no significant gain; reverted"),  # the likelihood is significantly lower
    ]:
        row = fitted(scored(half), (scored(best, loss),), share=share).row()
        assert words in row.note, (words, row)
    noisy = Score(1 + np.random.default_rng(1).normal(0.01, 1, 100), most, np.full(100, 0.01))
    row = fitted(scored(half), (noisy,)).row()
    assert row.verdict == BETTER and "but the other of the two is lower; reverted" in row.note


def test_the_row_is_of_the_weights_that_are_taken():
    start, epoch = scored(np.ones(60, bool), 1.0), scored(np.arange(60) < 30, 2.0)
    between = tuple(scored(np.arange(60) < n, loss) for n, loss in ((54, 1.1), (48, 1.3), (40, 1.6)))
    found = fitted(start, (epoch,), between)
    assert found.best is between[0] and found.best_share == 0.25
    assert found.row().accuracy == pytest.approx(0.9)
    assert "25% of the way" in found.row().note and "best of 4 candidates" in found.row().note
    larger = scored(np.arange(60) < 55, 1.05)
    assert fitted(start, (epoch,), between, (larger,)).best_share == 0.25
    assert fitted(start, (epoch,)).best_share == 1.0
    scratch = fitted(start, (epoch,), rival=False, share=1.0).row()
    assert (scratch.trick, scratch.accuracy, scratch.gain) == ("training from scratch", 0.5, None)


def test_every_class_counts_alike_in_the_row_too():
    weights = np.repeat([0.5 / 30, 0.5 / 10], [30, 10])
    start, best = np.ones(40, bool), np.arange(40) < 30
    row = fitted(scored(start, weights=weights), (scored(best, 1.1, weights),)).row()
    assert (row.accuracy, row.gain) == pytest.approx((0.5, -0.5))


def test_tricks_say_worse_where_they_are():
    labels = np.zeros(100, int)
    right, wrong = np.tile([0.9, 0.1], (100, 1)), np.tile([0.1, 0.9], (100, 1))
    for with_it, words, kept in (
        (wrong, "significantly worse: off", False),
        (right, "no significant gain: off", False),
    ):
        row = compared("trick", right, with_it, labels)
        assert (row.note, row.kept) == (words, kept)
    assert compared("trick", wrong, right, labels).note == "significant gain: on"


@pytest.mark.slow
def test_reason_ledger_report_and_file_tell_one_accuracy(tmp_path):
    """A learning rate that ruins the network, so that the linear classifier is what is left."""
    recipe = recipes.adjusted("all", size=32, epochs=2, learning_rate=0.5)
    result = recipes.finetune(folder(tmp_path / "photos", 20), backbone=small_network(), recipe=recipe, validation=0.5,
                              output=tmp_path / "run")  # fmt: skip
    row = next(row for row in result.ledger if row.trick == "finetuning")
    (reason,) = (reason for reason in result.recipe.decisions if reason.code == "train.outcome")
    assert (reason.values["gain"], reason.values["after"]) == (100 * row.gain, row.accuracy)
    assert row.note.startswith(training_outcome(row)) and str(reason).endswith(f": {training_outcome(row)}")
    page, saved = tmp_path / "page.html", json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert [gain["accuracy"] for gain in saved["ledger"] if gain["trick"] == "finetuning"] == [row.accuracy]
    recipes.load(tmp_path / "run").report(page)
    html = page.read_text(encoding="utf-8")
    assert f"ringed at epoch {row.epoch}, as in the ledger: {row.accuracy:.1%}" in html
    assert f"{row.accuracy:.1%}" in str(result)
    shares = [1.0] if "of the way" not in row.note else []
    for _ in shares:  # then the curve itself passes through the ring
        assert result.history["val_accuracy"][row.epoch - 1] == row.accuracy


def test_rows_of_older_runs_have_no_epoch():
    from recipes.evaluation.ledger import Gain
    from recipes.runs.folder import _made

    told = SimpleNamespace(**vars(_made(Gain, {"trick": "finetuning", "accuracy": 0.5, "interval": [0.0, 0.1]})))
    assert told.epoch is None and told.interval == (0.0, 0.1)
