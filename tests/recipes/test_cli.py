"""The command line as a user meets it: real processes, real exit codes."""

import csv
import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from assertions import rejects
from makers import folder, small_network

import recipes.cli
from recipes.cli.advice import as_flags
from recipes.cli.options import read_csv

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments, cwd):
    """In a process of its own."""
    command = [sys.executable, "-m", "recipes", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos/ and run/, made by the command line."""
    root = tmp_path_factory.mktemp("place")
    folder(root / "photos")
    small_network(root / "small.keras")
    done = run("finetune", "photos", "--backbone", "small.keras", "--recipe", "probe", "--output", "run", cwd=root)
    assert done.returncode == 0, done.stderr
    assert " held-out images, saved in run" in done.stdout.splitlines()[0] and "run/report.html" in done.stdout
    phases = [line.split(":")[0] for line in done.stderr.splitlines()]
    assert phases == ["audit", "probe", "plan", "training"]  # and nothing of TensorFlow's
    return root


@pytest.fixture
def output_of(place, monkeypatch, capsys):
    """Return a function that runs a command in this process, in the folder `place`, and returns what it prints."""
    monkeypatch.chdir(place)

    def run_here(*arguments) -> str:
        recipes.cli.app([str(argument) for argument in arguments], standalone_mode=False)
        return "".join(capsys.readouterr())

    return run_here


@pytest.mark.slow
def test_predict_writes_a_csv_with_the_damaged_file_named(place, output_of):
    (place / "new").mkdir(exist_ok=True)
    content = (place / "photos" / "red" / "024.jpg").read_bytes()
    (place / "new" / "a.jpg").write_bytes(content)
    (place / "new" / "b.jpg").write_bytes(content[:300])
    assert "1 images classified, 1 unreadable" in output_of("predict", "run", "new", "--output", "out.csv")
    rows = list(csv.DictReader((place / "out.csv").open(encoding="utf-8")))
    assert [row["class_name"] for row in rows] == ["red", ""]
    assert "truncated jpeg" in rows[1]["error"]
    assert sum(float(rows[0][name]) for name in ("blue", "green", "red")) == pytest.approx(1, abs=1e-5)
    output_of("predict", "run", "new", "--output", "out.csv", "--samples", "3")
    rows = list(csv.DictReader((place / "out.csv").open(encoding="utf-8")))
    assert float(rows[0]["spread"]) > 0 <= float(rows[0]["mutual_information"]) and rows[1]["spread"] == ""


def test_evaluate_export_report_audit_probe(place, output_of):
    assert "images were used for training or model selection" in (printed := output_of("evaluate", "run", "photos"))
    assert " % (" in printed.splitlines()[0] and "mean over the classes" in printed
    output_of("evaluate", "run", "photos", "-o", "classes.csv")
    assert len((place / "classes.csv").read_text().splitlines()) == 1 + 3
    assert "next:  recipes serve" in output_of("export", "run", "serving/1")
    assert (place / "serving" / "1" / "saved_model.pb").is_file()
    output_of("report", "run", "page.html")
    assert "run/report.html" in output_of("report", "run")
    assert "<script src" not in (place / "page.html").read_text(encoding="utf-8")
    assert "nothing odd" in output_of("audit", "photos", "--csv", "findings.csv")
    assert (place / "findings.csv").read_text().splitlines() == ["finding,file,detail,action,excluded"]
    assert "stage 2 (last)" in output_of("probe", "photos", "--backbone", "small.keras")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetune", "nowhere"], "does not exist"),
        (["finetune", "photos", "--recipe", "prob"], "Did you mean 'probe'?"),
        (["finetune", "photos", "--recpe", "probe"], "--recipe"),
        (["predict", "run", "photos", "--json", "--verbose", "--quiet"], "cannot be used together"),
        (["finetune", "photos", "--recipe", "photos"], "photos holds no recipe"),
        (["finetune", "photos", "--recipe", "run/recipe.json"], "give its folder, run"),
        (["evaluate", "nowhere", "photos"], "does not exist"),
        (["finetune", "photos", "--epochs", "-1"], "Invalid value"),
        (["finetune", "photos", "--set", "droput=0.1"], "did you mean 'dropout'?"),
        (["finetune", "photos", "--set", "dropout"], "expected NAME=VALUE"),
        (["search", "nowhere", "--backbone", "small.keras"], "does not exist"),
        (["search", "photos", "--trials", "-3"], "Invalid value"),
        (["search", "photos", "-o", "small.keras"], "cannot be written"),
        (["diagnose", "run", "photos", "--output", "seen.txt"], "expected the name of a picture"),
        (["diagnose", "run", "photos", "--output", "small.keras/seen.png"], "cannot be written"),
        (["report", "photos"], "exists but has no result.json"),
        (["prdict"], "Did you mean 'predict'?"),
    ],
)
def test_wrong_use_is_exit_code_2_and_says_why(place, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["recipes", *arguments])
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own
    with pytest.raises(SystemExit) as ended:
        recipes.cli.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_json_is_the_whole_standard_output(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    recipes.cli.app(["predict", "run", "photos/red", "--json", "-o", "j.csv"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["class_names"] == ["blue", "green", "red"] and len(found["predictions"]) == 12
    assert set(found["predictions"][0]) == {"path", "class_name", "probability", "probabilities", "error"}
    monkeypatch.setattr(sys, "argv", ["recipes", "report", "photos", "--json"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit):
        recipes.cli.main()
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "output.no_run"


def test_quiet_prints_the_answer_and_verbose_everything(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    recipes.cli.app(["audit", "photos", "-q"], standalone_mode=False)
    assert capsys.readouterr() == ("36 images: nothing odd\n", "")
    recipes.cli.app(
        ["finetune", "photos", "--backbone", "small.keras", "--recipe", "probe", "-v"], standalone_mode=False
    )
    assert "  because " in capsys.readouterr().out
    assert not logging.getLogger("recipes").handlers


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["finetune", "--help"], ["finetun"], ["audit", "nowhere"]]
)
def test_tensorflow_is_not_imported_before_it_is_needed(arguments):
    code = (
        "import sys; from recipes.cli import main\nsys.argv = ['recipes', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit as end: print('code', end.code)\n"
        "print({'tensorflow', 'numpy'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    assert done.stdout.endswith(f"code {0 if arguments[-1].startswith('--') else 2}\nset()\n"), done.stdout


@pytest.mark.parametrize(
    ("advice", "flags"),
    [
        ("use recipe='all' to train", "use --recipe all to train"),
        ("give backbone='MobileNetV2(weights=None)'", "give --backbone 'MobileNetV2(weights=None)'"),
        ("time_limit=90 is short; seed=3", "--time-limit 90 is short; --seed 3"),
        ("change it by recipes.adjusted(..., learning_rate=1e-4)", "change it by --set learning_rate=1e-4"),
        ("use recipe=recipes.adjusted('few', dropout=0.2)", "use --recipe few --set dropout=0.2"),
        ("recipes.from_csv(csv, within=...), or --within", "recipes.from_csv(csv, within=...), or --within"),
    ],
)
def test_advice_is_phrased_in_flags(advice, flags):
    assert as_flags(advice, recipes.cli.app) == flags


@pytest.mark.slow
def test_files_in_the_working_directory_hide_no_module(place, tmp_path):
    script = Path(sys.executable).with_name("recipes")
    if not script.exists():
        pytest.skip("the command `recipes` is not installed")
    for name in ("layers", "augment", "keras", "numpy", "json", "random", "recipes"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hidden')")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [script, "export", place / "run", "serving"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "serving" / "1").is_dir(), done.stderr


@pytest.mark.parametrize("given", ["run", "run/", "run/result.json"])
def test_a_run_is_a_recipe_for_the_next(place, monkeypatch, given):
    monkeypatch.chdir(place)
    first = recipes.load("run").recipe
    again = recipes.cli.train._recipe(given, {})
    assert dataclasses.replace(again, decisions=first.decisions) == first
    assert again.reasons == ("the recipe of the run in run",)
    longer = recipes.cli.train._recipe(given, {"epochs": 3, "dropout": 0.1})
    assert longer.epochs == 3 and longer.dropout == 0.1 and longer.taps == first.taps


def test_seeds_by_the_first_runs_recipe_make_a_soup(place, output_of):
    output_of("finetune", "photos", "--backbone", "small.keras", "--recipe", "run", "--seed", "1", "--output", "run-1")
    assert recipes.load(place / "run-1").recipe.taps == recipes.load(place / "run").recipe.taps
    assert "soup" in output_of("soup", "run", "run-1", "--output", "soup")


@pytest.mark.slow
def test_a_picture_is_of_the_kind_that_its_name_says(place, output_of):
    for name, begin in (("a.png", b"\x89PNG"), ("a.jpg", b"\xff\xd8\xff"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        assert name in output_of("preview", "photos", "--size", "16", "--output", name)
        assert (place / name).read_bytes().startswith(begin)


def test_a_preview_skips_what_cannot_be_decoded_and_says_why(place, output_of, tmp_path):
    shutil.copytree(place / "photos", tmp_path / "odd")
    first, *_ = sorted((tmp_path / "odd").rglob("*.jpg"))
    first.write_bytes(b"P6 4 4 255\n" + bytes(48))
    printed = output_of("preview", str(tmp_path / "odd"), "--size", "16", "--output", str(tmp_path / "a.png"))
    assert f"skipped {first}: format not supported: PPM, PGM or PBM" in printed and (tmp_path / "a.png").is_file()
    for file in (tmp_path / "odd").rglob("*.jpg"):
        file.write_bytes(b"no image")
    with rejects(recipes.DataError, "cli.undecodable", images=16, match="last error: not an image"):
        output_of("preview", str(tmp_path / "odd"), "--size", "16", "--output", str(tmp_path / "b.png"))


def test_every_command_with_a_dataset_takes_within(place, output_of, capsys):
    for name, command in typer.main.get_command(recipes.cli.app).commands.items():
        options = {parameter.name for parameter in command.params}
        assert {"within", "column"} <= options or not options & {"dataset", "validation", "proof"}, name
    (place / "lists").mkdir()
    rows = [f"../{photo.relative_to(place)},{photo.parent.name}\n" for photo in (place / "photos").rglob("*.jpg")]
    (place / "lists" / "all.csv").write_text("".join(rows))
    with rejects(recipes.DataError, "table.outside", match="--within on the command line"):
        output_of("preview", "lists/all.csv", "--size", "16")
    assert "preview.png" in output_of("preview", "lists/all.csv", "--size", "16", "--within", ".")
    capsys.readouterr()
    assert [read_csv(given, place) for given in ("photos", 0.2, None)] == ["photos", 0.2, None]
    assert capsys.readouterr().err == "--within only applies to CSV files; ignored for photos.\n"


def test_columns_are_chosen_on_the_command_line(place, output_of):
    (place / "chosen").mkdir()
    rows = [
        f"{photo.parent.name}/{photo.name},x,{photo.parent.name},1\n" for photo in (place / "photos").rglob("*.jpg")
    ]
    (place / "chosen" / "list.csv").write_text("photo,class,kind,patient\n" + "".join(rows))
    chosen = [f"--column={each}" for each in ("label=kind", "folder=photos", "ignore=patient")]
    assert "label: 'kind' (chosen)" in output_of("audit", "chosen/list.csv", *chosen)
    assert read_csv("chosen/list.csv", None, ["label=kind", "folder=photos"]).train.class_names == (
        "blue",
        "green",
        "red",
    )
    cyrillic = "".join(f"{photo.name},\u043a\u043e\u0442\n" for photo in (place / "photos" / "red").glob("*.jpg"))
    (place / "chosen" / "cyrillic.csv").write_text(cyrillic, "cp1251")
    named = ["encoding=cp1251", "folder=photos/red"]
    assert read_csv("chosen/cyrillic.csv", None, named).train.class_names == ("\u043a\u043e\u0442",)
    for wrong, code in ((["kind"], "cli.column"), (["label=a", "label=b"], "cli.column_twice")):
        with rejects(recipes.DataError, code, value=wrong[-1]):
            read_csv("chosen/list.csv", None, wrong)


def test_warnings_of_this_library_show_no_line_of_code(capsys):
    recipes.cli._show_warning(UserWarning("a class loses files"), UserWarning, str(ROOT / "recipes" / "x.py"), 1)
    assert capsys.readouterr().err == "warning: a class loses files\n"
    recipes.cli._show_warning(UserWarning("other"), UserWarning, "elsewhere/keras.py", 7)
    assert capsys.readouterr().err.startswith("elsewhere/keras.py:7: UserWarning: other")


def test_no_traceback(place):
    done = run("evaluate", "nowhere", "photos", cwd=place)
    assert done.returncode == 2
    assert "does not exist" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.minutes)]
)
def test_signals(place, number, code):
    arguments = ["finetune", "photos", "--backbone", "small.keras", "--recipe", "all", "--epochs", "100000", "-v"]
    command = [sys.executable, "-u", "-m", "recipes", *arguments, "--output", f"run-{code}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        for line in process.stdout:
            if b"epoch 2 of" in line:
                break
        process.send_signal(number)
        printed = process.stdout.read()
    assert process.returncode == code
    assert b"stopping after this step" in printed and b"run the same command again to resume" in printed
    assert (place / f"run-{code}" / ".state" / "first.npz").is_file()
