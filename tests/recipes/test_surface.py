"""What results look like in Python and in a notebook: reprs, summaries, cards, and the accuracy class by class."""

import csv
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser

import keras
import numpy as np
import optuna
import pytest
from assertions import rejects
from makers import small_network
from rich.console import Console
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

import augment
import layers
import optimizers
import recipes
from recipes import OutputError, RecipesError
from recipes.core.card import card
from recipes.core.text import counted, described, percent
from recipes.data.folders.layout import CLASSES, Layout, Part
from recipes.data.images import ImageData, Splits
from recipes.data.packs.manifest import Manifest, Shard
from recipes.data.tables.names import Column, TableReading
from recipes.diagnostics.activations import Inspection
from recipes.diagnostics.subject import Verdict
from recipes.evaluation.calibrate import Calibration
from recipes.evaluation.headline import headline
from recipes.evaluation.intervals import wilson_interval
from recipes.evaluation.metrics import Evaluation, score
from recipes.evaluation.per_class import ClassScore
from recipes.evaluation.predictions import Judged
from recipes.evaluation.selection import Selection
from recipes.planning.constructor_text import constructor_text
from recipes.planning.job_options import Options
from recipes.planning.lecture_table import LectureTable
from recipes.planning.reason import Reason
from recipes.probing.label_errors import Suspect
from recipes.probing.logistic import Linear
from recipes.probing.probe import MirrorTest
from recipes.runs.folder import describe
from recipes.runs.record import Record
from recipes.studies.rank import Ranked
from recipes.tuning.record import Trial

LONG = "a long name [red] <b>&\n\t$x$ " * 40
HOSTILE = "<script>alert(1)</script>&\"'"
FILES = tuple(f"{LONG}{i}.jpg" for i in range(10_000))
NAMES = tuple(f"{i} {LONG}" for i in range(1000))


@pytest.fixture(scope="module")
def random_scores():
    """(probabilities, labels) of 200 images of four classes; the last class has no image."""
    random = np.random.default_rng(0)
    return random.dirichlet(np.ones(4), 200), random.integers(0, 3, 200)


@pytest.fixture(scope="module")
def evaluation(random_scores) -> Evaluation:
    return score(*random_scores, ("ant", "bee", "cat", "dog"))


def many_classes() -> Evaluation:
    random = np.random.default_rng(0)
    return score(random.dirichlet(np.ones(1000), 2000), random.integers(0, 1000, 2000), NAMES)


def probe() -> recipes.Probe:
    linear = Linear(np.zeros((9, 1000)), np.zeros(1000), 0.1)
    stages = tuple(
        recipes.StageResult(f"{LONG}{i}", 9, 0.5, (0.4, 0.6), 1.0, 0.5, 0.5, (i,), linear, np.zeros((9, 1000)),
                            np.ones(300))
        for i in range(100)
    )  # fmt: skip
    return recipes.Probe(stages, 12.34, MirrorTest(0.5, 0.4, True), origin=LONG)


def audited() -> recipes.Audit:
    findings = tuple(recipes.Finding(LONG, FILES, LONG, True, FILES) for _ in range(50))
    return recipes.Audit(findings, {"train": FILES}, dict.fromkeys(FILES, "x"))


def recipe() -> recipes.Recipe:
    policy = replace(augment.Policy.strong(32), extra=keras.layers.Rescaling(1.0, name="x" * 1000))
    changed = replace(recipes.finetune_few(32), policy=policy, taps=tuple(range(1000)), dropout=0.123456789)
    return changed.with_reasons(*(Reason("plan.test", LONG) for _ in range(100)))


def record(kind: type[Record] = recipes.Result) -> Record:
    metrics = many_classes()
    return kind(
        model=small_network(), class_names=list(NAMES), recipe=recipe(), audit=audited(), backbone=LONG, probe=probe(),
        history={"loss": [0.1] * 100}, validation=metrics, test=metrics, selection=Selection(9, 0.5, (0.4, 0.6)),
        table=LectureTable(True, True, True), suspects=(suspect(),) * 1000, seconds={LONG: 1.0},
        ledger=(gain(),) * 100, command={"dataset": LONG}, judged=Judged(np.zeros(9, int), np.zeros((9, 1000))),
    )  # fmt: skip


def suspect() -> Suspect:
    return Suspect(LONG, LONG, LONG, 0.9)


def gain() -> recipes.Gain:
    return recipes.Gain(LONG, 0.9, 0.012, (-0.01, 0.03), 0.1, (0.0, 0.2), note=LONG, epoch=3)


def images() -> ImageData:
    return ImageData(FILES, np.arange(10_000) % 1000, NAMES, FILES)


def trial() -> Trial:
    return Trial(3, {f"{LONG}{i}": 1 / 3 for i in range(20)}, 0.9, 0.1, "complete")


def searched() -> recipes.Search:
    return recipes.Search(recipe(), many_classes(), 40, (trial(),) * 1000, 10, optuna.create_study())


def manifest() -> Manifest:
    return Manifest("x", NAMES, tuple(Shard(file, "train", 9, 9, "0" * 64) for file in FILES), "0" * 64)


def schedule() -> optimizers.Then:
    steps = optimizers.StepDecay(0.1, tuple(range(1000)))
    for _ in range(3):
        steps = optimizers.Then(steps, 3, optimizers.Warmup(steps, 3))
    return steps


def prediction() -> recipes.Prediction:
    return recipes.Prediction(LONG, 0.9, np.full(1000, 1e-3), 0.1, 0.1, LONG, "", NAMES)


MINIMUM = optimizers.Minimum(1 / 3, 1 / 3, 10, 10, True, "converged: the gradient is small", np.zeros(10_000))
WORST = {  # of each class, the longest instance that is likely
    recipes.Ablation: lambda: recipes.Ablation((gain(),) * 100, recipe()),
    recipes.Adjusted: lambda: recipes.adjusted("few", policy=recipe().policy, taps=tuple(range(1000)), epochs=3),
    recipes.Audit: audited,
    recipes.Babysitter: lambda: recipes.Babysitter(LONG),
    recipes.Diagnosis: lambda: recipes.Diagnosis((Verdict(LONG, False, LONG, LONG),) * 100),
    recipes.Evaluation: many_classes,
    recipes.Finding: lambda: audited().findings[0],
    recipes.Gain: gain,
    recipes.Prediction: prediction,
    recipes.Probe: probe,
    recipes.Ranking: lambda: recipes.Ranking((Ranked(LONG, probe(), 10**9, 224),) * 100),
    recipes.Recipe: recipe,
    recipes.Result: record,
    recipes.Search: searched,
    recipes.StageResult: lambda: probe().stages[0],
    recipes.Summary: lambda: recipes.Summary(10**9, 1000, 224, True, 10**9, 1 / 3, 10**9, 10**12, 10**12, 1 / 3, 1 / 3),
    Calibration: lambda: Calibration(1 / 3, 1 / 3, 1 / 3, 1 / 3, 1 / 3, 10**9, 1 / 3),
    ClassScore: lambda: many_classes().per_class[0],
    ImageData: images,
    Inspection: lambda: Inspection(*(dict.fromkeys(NAMES, 1 / 3) for _ in range(3))),
    Judged: lambda: record().judged,
    Layout: lambda: Layout(CLASSES, LONG, (Part("train", LONG, dict.fromkeys(NAMES, FILES)),) * 3),
    LectureTable: lambda: LectureTable(True, False, True),
    Linear: lambda: probe().stages[0].classifier,
    Manifest: manifest,
    MirrorTest: lambda: MirrorTest(1 / 3, 1 / 3, True),
    recipes.Comparison: lambda: recipes.Comparison(many_classes(), many_classes(), gain(), 10**6, 10**6),
    Options: lambda: Options(9, True, 8, [LONG] * 1000),
    Ranked: lambda: Ranked(LONG, probe(), 10**9, 224),
    Reason: lambda: Reason("plan.test", LONG, dict.fromkeys(NAMES, 1)),
    Record: lambda: record(Record),
    Selection: lambda: Selection(10**6, 1 / 3, (1 / 3, 2 / 3)),
    Splits: lambda: Splits(images(), images(), images(), audited().findings),
    Suspect: suspect,
    TableReading: lambda: TableReading(LONG, 9, "utf-8", ",", (Column(LONG, "label", LONG),) * 100, LONG, FILES),
    Trial: trial,
    Verdict: lambda: Verdict(LONG, False, LONG, LONG, {LONG: [1.0] * 1000}),
    augment.Cache: augment.Cache,
    augment.CropGrid: lambda: augment.multicrop(tuple(range(224, 10_000)), 10, 224),
    augment.PCA: lambda: augment.IMAGENET_PCA,
    augment.Policy: lambda: recipe().policy,
    augment.Source: lambda: images().source(),
    layers.DropConnect: lambda: layers.DropConnect(keras.layers.Dense(3), 0.1),
    layers.FractionalMaxPooling2D: layers.FractionalMaxPooling2D,
    layers.Maxout: lambda: layers.Maxout(8, 2),
    layers.MonteCarlo: lambda: layers.MonteCarlo(np.zeros((999, 999)), np.zeros((999, 999)), np.zeros(999)),
    layers.StochasticDepth: lambda: layers.StochasticDepth(0.1),
    layers.StochasticResidual: lambda: layers.StochasticResidual(keras.layers.Dense(3), 0.1),
    optimizers.AdaGrad: optimizers.AdaGrad,
    optimizers.Adam: lambda: optimizers.Adam(schedule()),
    optimizers.Cosine: lambda: optimizers.Cosine(0.1, 100),
    optimizers.CosineRestarts: lambda: optimizers.CosineRestarts(0.1, 100),
    optimizers.Cyclic: lambda: optimizers.Cyclic(0.1, 100, 5),
    optimizers.Discriminative: lambda: optimizers.Discriminative(optimizers.Adam(), dict.fromkeys(NAMES, 0.1)),
    optimizers.ExponentialDecay: lambda: optimizers.ExponentialDecay(0.1, 0.5, 10),
    optimizers.InverseTimeDecay: lambda: optimizers.InverseTimeDecay(0.1, 0.5, 10),
    optimizers.LinearFit: lambda: optimizers.LinearFit(np.zeros((9, 1000)), np.zeros(1000), MINIMUM),
    optimizers.Minimum: lambda: MINIMUM,
    optimizers.Momentum: optimizers.Momentum,
    optimizers.Nesterov: optimizers.Nesterov,
    optimizers.PolyakAveraging: optimizers.PolyakAveraging,
    optimizers.RMSProp: optimizers.RMSProp,
    optimizers.StepDecay: lambda: optimizers.StepDecay(0.1, tuple(range(1000))),
    optimizers.Then: schedule,
    optimizers.UniformAveraging: lambda: optimizers.UniformAveraging(3),
    optimizers.Warmup: lambda: optimizers.Warmup(schedule(), 5),
}  # fmt: skip
PACKAGES = (recipes, augment, layers, optimizers)
PUBLIC = {
    value for package in PACKAGES for name in package.__all__ if isinstance(value := getattr(package, name), type)
}
ERRORS = {kind for kind in PUBLIC if issubclass(kind, RecipesError)}


def test_every_public_class_has_an_instance_here():
    assert PUBLIC - ERRORS - {augment.PolicyError} - set(WORST) == set()


@pytest.mark.parametrize("kind", sorted(WORST, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_the_repr_is_one_short_line(kind):
    instance = WORST[kind]()
    assert isinstance(instance, kind)
    text = repr(instance)
    assert 10 < len(text) < 600 and text.isprintable(), text


@pytest.mark.parametrize("kind", sorted(ERRORS, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_the_repr_of_an_error_is_short_and_names_its_code(kind):
    error = kind(LONG)
    assert len(repr(error)) < 300 and error.code in repr(error) and str(error).startswith(LONG)


def test_a_policy_and_a_recipe_show_what_is_not_the_default():
    assert repr(augment.Policy(rotate=10)) == "Policy(size=224, rotate=10)"
    assert eval(repr(augment.Policy.strong(32)), {"Policy": augment.Policy}) == augment.Policy.strong(32)
    assert repr(recipes.linear_probe(32)).startswith("Recipe('probe', 32, unfreeze=0, epochs=0, policy=Policy(size=32")
    assert repr(recipes.adjusted("few", epochs=2)) == "adjusted('few', epochs=2)"


POLICY_TEXT = (
    "Policy(size=32, short_side=(32, 32), area=None, aspect=(0.75, 1.3333333333333333), flip=0.0, translate=0.0, "
    "rotate=0.0, stretch=0.0, shear=0.0, lens=0.0, brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(0, 0), "
    "pca=0.0, mixup=0.0, cutmix=0.0, erase=0.0, fill=None, centre=True, extra=None)"
)


def test_the_text_of_a_recipe_in_commands_is_that_of_version_0_1():
    """Otherwise runs, searches and cached features of earlier versions would be those of another command."""
    linear = recipes.linear_probe(32)
    assert constructor_text(linear) == (
        f"Recipe(name='probe', size=32, unfreeze=0, epochs=0, policy={POLICY_TEXT}, test_size=None, taps=None, "
        "batch_size=32, accumulate=1, learning_rate=0.001, layer_decay=1.0, weight_decay=0.0001, label_smoothing=0.1, "
        "dropout=0.0, stochastic_depth=0.0, averaging=0.0, patience=10, warm_start=True, interpolate=True, "
        "balanced=False, mirror=None, calibrate=True, snapshots=0, crops=1, scales=None, refit=True)"
    )
    changed = recipes.adjusted("probe", policy=linear.policy, taps=(1,))
    assert constructor_text(changed) == (
        f"Adjusted(recipe='probe', changes=(('policy', {POLICY_TEXT}), ('taps', (1,)), ('size', 32)))"
    )
    assert constructor_text((1, linear.policy, "a")) == f"(1, {POLICY_TEXT}, 'a')" and constructor_text(()) == "()"


def test_short_texts():
    assert described("Audit", "3 findings", "", None, "a\n b") == "Audit(3 findings, a b)"
    assert counted(1, "class", "classes") == "1 class" and counted(1204, "image") == "1,204 images"
    assert percent(0.9216, (0.868, 0.9549)) == "92.2 % (86.8 to 95.5)" and percent(1) == "100.0 %"


# The accuracy class by class


def test_per_class_agrees_with_scikit_learn(evaluation, random_scores):
    probabilities, labels = random_scores
    guesses = probabilities.argmax(1)
    precision, recall, f1, support = precision_recall_fscore_support(labels, guesses, labels=range(4), zero_division=0)
    matrix = confusion_matrix(labels, guesses, labels=range(4))
    for i, each in enumerate(evaluation.per_class):
        assert (each.class_name, each.images, each.correct) == (evaluation.class_names[i], support[i], matrix[i, i])
        assert each.precision == pytest.approx(precision[i]) and each.f1 == pytest.approx(f1[i])
        assert each.interval == wilson_interval(each.correct, each.images)
        wrong = np.delete(matrix[i], i)
        assert each.confused == wrong.max() and (each.confused_with is None) == (not wrong.any())
        if each.images:
            assert each.accuracy == pytest.approx(recall[i])
            assert matrix[i, evaluation.class_names.index(each.confused_with)] == each.confused
    assert evaluation.per_class[3].accuracy is None and evaluation.per_class[3].f1 == 0
    assert sum(each.correct for each in evaluation.per_class) / evaluation.n == evaluation.accuracy


def test_names_are_numbers_where_they_are_unknown(random_scores, evaluation):
    unnamed = score(*random_scores)
    assert [each.class_name for each in unnamed.per_class] == ["0", "1", "2", "3"]
    assert unnamed == evaluation and unnamed.named(evaluation.class_names).per_class == evaluation.per_class


def test_an_evaluation_of_an_early_version_says_what_it_lacks(evaluation, tmp_path):
    early = replace(evaluation, confusion=())
    for use in (lambda: early.per_class, early.table, early.plot, lambda: early.to_csv(tmp_path / "x.csv")):
        with rejects(RecipesError, "evaluation.no_confusion", match="evaluate"):
            use()
    assert "<table" not in early._repr_html_()


def test_the_table_shows_every_class_or_the_worst(evaluation):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(evaluation.named(["[red]ant", "bee", "cat", "dog"]).table())
    assert "[red]ant" in capture.get() and percent(evaluation.per_class[0].accuracy) in capture.get()
    many = many_classes()
    worst = sorted(each.accuracy for each in many.per_class if each.accuracy is not None)[:5]
    table = many.table(5)
    assert table.row_count == 5 and "995 others" in table.caption
    assert [str(cell) for cell in table.columns[2].cells] == [percent(accuracy) for accuracy in worst]


def test_the_csv_has_a_row_for_each_class_and_replaces_nothing_else(evaluation, tmp_path):
    path = tmp_path / "classes.csv"
    for _ in range(2):
        evaluation.named(['a,"b', "é\udce9", "=c", "d"]).to_csv(path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class_name"] for row in rows] == ['a,"b', "é\\xe9", "=c", "d"] and rows[3]["accuracy"] == ""
    assert float(rows[0]["accuracy"]) == evaluation.per_class[0].accuracy
    assert [int(row["images"]) for row in rows] == [each.images for each in evaluation.per_class]
    path.write_text("class_name,notes\n")
    with rejects(OutputError, "evaluation.output_exists", path=path):
        evaluation.to_csv(path)
    with rejects(OutputError, "evaluation.output_unwritable", path=tmp_path):
        evaluation.to_csv(tmp_path)


@pytest.mark.parametrize("classes", [2, 4, 30, 1000])
def test_the_figure_shows_each_class_or_the_worst(classes, tmp_path):
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, 500)
    metrics = score(random.dirichlet(np.ones(classes), 500), labels, [f"$class_{i} ^{LONG}" for i in range(classes)])
    figure = metrics.plot()
    figure.savefig(tmp_path / "classes.png")
    points, matrix = figure.axes
    shown = min(classes, 30)
    assert len(points.get_yticks()) == shown and matrix.images[0].get_array().shape == (shown, shown)
    assert max(figure.get_size_inches()) < 20
    assert (figure.get_suptitle() != "") == (classes > 30)


# Runs


@pytest.fixture(scope="module")
def result(trained) -> recipes.Result:
    """A run with a test split, an excluded photo, a training that gained, and a class name that is HTML."""
    run, _ = trained
    unread = recipes.Finding("zero bytes", ("red/empty.jpg",), "excluded", True)
    tuned = recipes.Gain("finetuning", 0.95, 0.021, (0.003, 0.039), 0.1, (0.0, 0.2), epoch=3)
    test = score(run.judged.probabilities[::2], run.judged.labels[::2])
    audit = replace(run.audit, findings=(*run.audit.findings, unread))
    return replace(run, class_names=[HOSTILE, "green", "red"], test=test, audit=audit, ledger=(tuned,), command={})


def test_the_accuracy_of_a_run_is_on_images_that_decided_nothing(evaluation):
    selection, test = Selection(9, 0.5, (0.4, 0.6)), replace(evaluation, accuracy=0.7, n=77)
    assert headline(None, None) is None
    assert headline(None, evaluation).accuracy == evaluation.accuracy
    corrected = headline(None, evaluation, selection)
    assert (corrected.accuracy, corrected.interval, corrected.images) == (0.5, (0.4, 0.6), evaluation.n)
    assert headline(test, evaluation, selection).accuracy == 0.7
    assert str(corrected) == "50.0 % (40.0 to 60.0) on 200 held-out images"


def test_the_summary_begins_with_the_answer(result):
    answer, network, *facts = result.summary().splitlines()
    assert answer == f"{percent(result.accuracy, result.test.interval)} on {result.test.n} held-out images"
    assert result.backbone in network and "recipe 'probe'" in network and len(facts) <= 7
    assert any(fact.startswith("audit: 1 file excluded (zero bytes: ") for fact in facts) and facts[-1].startswith(
        "details: print(result)"
    )
    assert "gain: finetuning +2.1 points (+0.3 to +3.9) over the linear classifier, kept" in facts
    saved = result.summary(saved_in="my run").splitlines()
    assert saved[0] == f"{answer}, saved in my run" and saved[-1] == "details: recipes report 'my run' report.html"
    corrected = replace(result, test=None, selection=Selection(9, 0.5, (0.4, 0.6)))
    assert corrected.accuracy == 0.5 and "selecting the best of 9 candidates" in corrected.summary()
    bare = replace(result, test=None, validation=None, selection=None)
    assert (
        bare.accuracy is None and bare.summary().startswith("not evaluated") and "not evaluated" in bare._repr_html_()
    )
    assert max(len(line) for line in record().summary().splitlines()) < 300
    assert str(result) != result.summary() and repr(result).startswith("Result(") and "accuracy" in repr(result)


def test_evaluations_of_a_run_know_its_classes_and_saved_runs_do_not_repeat_them(result, tmp_path):
    assert result.validation.class_names == tuple(result.class_names)
    facts = describe(result)
    assert "class_names" not in facts["validation"] and set(facts["validation"]) <= set(asdict(result.validation))
    result.save(tmp_path / "run")
    loaded = recipes.load(tmp_path / "run")
    assert loaded.validation == result.validation and loaded.test.per_class[0].class_name == result.class_names[0]
    assert loaded.accuracy == result.accuracy and repr(loaded) == repr(result)


def test_predictions_name_their_top_classes(result, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    good = result.held_out.images[0]
    first, bad = result.predict([good, tmp_path / "bad.jpg"])
    names, values = zip(*first.top, strict=True)
    assert names[0] == first.class_name and values[0] == pytest.approx(first.probability)
    assert sorted(values, reverse=True) == list(values) and sum(values) == pytest.approx(1, abs=1e-5)
    assert {name: p for name, p in first.top} == dict(
        zip(result.class_names, first.probabilities.tolist(), strict=True)
    )
    assert first.class_names is bad.class_names and bad.top == () and "error=" in repr(bad)
    assert prediction().top == tuple((name, 1e-3) for name in NAMES[:5])
    assert result.predict([good], abstain=1.0)[0].top[0][0] == first.class_name


# Cards


class Strict(HTMLParser):
    """Checks that elements are closed in order, and collects their names, their attributes and the text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.names, self.attributes, self.text, self.open = set(), set(), "", []
        self.feed(markup)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += "" if self.open[-1:] == ["style"] else data


def cards(result) -> dict[str, str]:
    hostile = recipes.Finding(HOSTILE, (HOSTILE,) * 3, HOSTILE)
    stage = replace(probe().stages[0], name=HOSTILE)
    trials = tuple(Trial(i, {"learning_rate": 0.1, HOSTILE: HOSTILE}, 0.9, float(i), "complete") for i in range(30))
    return {
        "result": result._repr_html_(),
        "validation": result.validation._repr_html_(),
        "audit": recipes.Audit((hostile,) * 30, {"train": FILES})._repr_html_(),
        "clean": recipes.Audit((), {"train": FILES})._repr_html_(),
        "probe": replace(probe(), stages=(stage,))._repr_html_(),
        "search": recipes.Search(recipe(), result.validation, 9, trials, 3, optuna.create_study())._repr_html_(),
        "large": record()._repr_html_(),
        "large search": searched()._repr_html_(),
        "large audit": audited()._repr_html_(),
        "large probe": probe()._repr_html_(),
        "text": card(HOSTILE, HOSTILE, [(HOSTILE, HOSTILE)]),
    }


def test_cards_escape_everything_run_nothing_and_load_nothing(result):
    for name, markup in cards(result).items():
        page = Strict(markup)
        assert page.names <= {"style", "div", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td"}, name
        assert page.attributes == {"class"} and not re.search(r"url\(|@import|https?:", markup), name
        assert len(markup) < 100_000, name
        if name not in ("clean", "large", "large search", "large audit", "large probe"):
            assert "<script>" in page.text, name


def test_cards_show_the_answer(result):
    shown = {name: Strict(markup).text for name, markup in cards(result).items()}
    assert percent(result.accuracy, result.headline.interval) in shown["result"]
    assert "green" in shown["result"] and "1 file excluded" in shown["result"]
    assert percent(result.validation.macro_accuracy) in shown["validation"]
    assert "and 10 more" in shown["audit"] and "nothing odd" in shown["clean"]
    assert "best of 30 trials" in shown["search"] and "20 others are not shown" in shown["search"]
    assert "990 others are omitted" in shown["large"]
