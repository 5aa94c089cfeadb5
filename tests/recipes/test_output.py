"""Printing never ends a run, whatever the streams are."""

import contextlib
import errno
import inspect
import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import pytest
from makers import folder, small_network

import recipes
from recipes.core.output import NotebookRenderer, SafeStream, TerminalRenderer, printable, safe_output
from recipes.serving.app import serve
from recipes.training.input.server import serve as input_worker

TEXT = "plan ▶ 3 × 2 … ± 1 \udcff ä 猫\n"
ROOT = Path(__file__).resolve().parents[2]
PURE = {"adjusted", "finetune_all", "finetune_few", "from_scratch", "ledger_table", "lecture_scales",
        "linear_probe", "plan"}  # fmt: skip


class WriteOnly:
    """The least that `print` takes for a stream."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


class Hostile(WriteOnly):
    """An ASCII stream that also fails at every third write, in turn as a full disk, a closed file and a dead widget."""

    encoding, count = "ascii", 0

    def write(self, text):
        text.encode(self.encoding)
        self.count += 1
        if self.count % 3 == 0:
            raise (OSError(errno.ENOSPC, "No space left on device"), ValueError("closed"), RuntimeError("gone"))[
                self.count // 3 % 3
            ]
        super().write(text)


def encoded(encoding: str) -> tuple[io.BytesIO, io.TextIOWrapper]:
    content = io.BytesIO()
    return content, io.TextIOWrapper(content, encoding, write_through=True)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"plan > 3 x 2 ... +/- 1 \\xff \\xe4 \\u732b\n"),
        ("cp1252", b"plan > 3 \xd7 2 \x85 \xb1 1 \\xff \xe4 \\u732b\n"),
        ("utf-8", "plan ▶ 3 × 2 … ± 1 \\xff ä 猫\n".encode()),
    ],
)
def test_characters_that_an_encoding_lacks_are_replaced(encoding, expected):
    content, stream = encoded(encoding)
    with pytest.raises(UnicodeEncodeError):
        stream.write(TEXT)
    assert SafeStream(stream).write(TEXT) == len(TEXT)
    assert content.getvalue() == printable(TEXT, encoding).encode(encoding) == expected


class Unnamed(WriteOnly):
    """A stream that says nothing of its encoding, or something wrong."""

    def __init__(self, really: str, **attributes):
        super().__init__()
        self.really = really
        vars(self).update(attributes)

    def write(self, text):
        text.encode(self.really)
        super().write(text)


@pytest.mark.parametrize("attributes", [{}, {"encoding": None}, {"encoding": "utf-8"}, {"encoding": "nonsense"}])
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_streams_that_do_not_name_their_encoding_print_too(encoding, attributes, caplog):
    stream = Unnamed(encoding, **attributes)
    SafeStream(stream).write(TEXT)
    assert stream.text.startswith("plan > 3 ") and "\\u732b" in stream.text and not caplog.records


def test_what_cannot_be_written_is_dropped_and_said_once(caplog):
    closed = io.StringIO()
    closed.close()
    read, write = os.pipe()
    os.close(read)
    for stream, warnings in [
        (None, 0), (WriteOnly(), 0), (os.fdopen(write, "w", buffering=1), 0), (closed, 1),
        (open("/dev/full", "w", buffering=1), 1),  # noqa: SIM115
    ]:  # fmt: skip
        caplog.clear()
        safe = SafeStream(stream)
        print("a", file=safe, flush=True)
        safe.writelines(["b\n", "c\n"])
        assert not safe.isatty() and safe.encoding.lower() == "utf-8"
        assert len(caplog.records) == warnings
        with contextlib.suppress(OSError, AttributeError):  # what its buffer still holds
            stream.close()


def test_closing_leaves_the_stream_of_the_caller_open():
    stream = io.StringIO()
    SafeStream(stream).close()
    assert not stream.closed


def test_only_text_is_written():
    with pytest.raises(TypeError, match="write\\(\\) takes a str, got bytes"):
        SafeStream(None).write(b"")


def test_streams_are_given_back_and_stay_lenient(monkeypatch):
    content, stream = encoded("ascii")
    other = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)

    @safe_output()
    def printing(text):
        """Its docstring."""
        outer = sys.stdout
        with safe_output():
            assert sys.stdout is outer is not stream
        print(text)
        return text

    assert (printing("×"), printing.__doc__) == ("×", "Its docstring.")
    assert sys.stdout is stream
    print("…")  # the caller's own
    assert content.getvalue() == b"x\n...\n"
    with safe_output():
        monkeypatch.setattr(sys, "stdout", other)
    assert sys.stdout is other  # what the caller put there meanwhile


def test_public_functions_print_safely():
    members = {name: getattr(recipes, name) for name in recipes.__all__}
    functions = {name: f for name, f in members.items() if inspect.isfunction(f)} | {
        name: getattr(recipes.Result, name)
        for name in ("predict", "probabilities", "evaluate", "choose_crops", "export", "report")
    } | {"serve": serve, "input_worker": input_worker}  # fmt: skip
    assert set(functions) >= PURE
    unsafe = {name for name, f in functions.items() if not hasattr(f, "__wrapped__")}
    assert unsafe - {"finetune"} == PURE and "safe_output(checked_verbosity(verbose))" in inspect.getsource(
        recipes.finetune
    )


@pytest.mark.slow
def test_a_training_outlives_its_output(tmp_path, monkeypatch):
    stream = Hostile()
    monkeypatch.setattr(sys, "stdout", stream)
    epochs = []
    talks = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print("▶", epochs.append(epoch)))
    result = recipes.finetune(folder(tmp_path), backbone=small_network(), callbacks=[talks],
                              recipe=recipes.adjusted("all", size=32, epochs=2))  # fmt: skip
    assert epochs == [0, 1] and len(result.history["loss"]) == 2
    assert "linear classifier" in stream.text and stream.count > 9


def test_the_babysitter_alone_outlives_its_output(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Hostile())
    sitter = recipes.Babysitter(tmp_path)
    for _ in range(4):
        sitter._report("×")
    assert sitter.verdicts == ["×"] * 4


@pytest.mark.slow
def test_the_command_line_does_its_work_when_nobody_reads(tmp_path):
    """As `recipes finetune … | head -0` does, on a machine whose encoding is not UTF-8."""
    folder(tmp_path / "photos")
    small_network(tmp_path / "small.keras")
    command = [sys.executable, "-m", "recipes", "finetune", "photos", "--backbone", "small.keras", "--recipe", "probe"]
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([*command, "--output", "run"], cwd=tmp_path, env=environment, stdout=write,
                          stderr=subprocess.PIPE, text=True, encoding="cp1252")  # fmt: skip
    os.close(write)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr and "Exception" not in done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    assert len(recipes.load(tmp_path / "run").class_names) == 3


def test_reading_a_table_prints_to_any_stream(tmp_path, monkeypatch):
    folder(tmp_path / "photos", 2)
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(tmp_path.glob("photos/*/*.jpg"))]
    (tmp_path / "类.csv").write_text("\n".join(["path,label", *rows]), "utf-8")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "cp1252", errors="strict"))
    assert len(recipes.from_csv(tmp_path / "类.csv").train) == 6


@pytest.mark.slow
def test_a_handler_of_the_caller_gets_what_verbose_false_does_not_print(capsys, caplog):
    with caplog.at_level("INFO", logger="recipes"):
        recipes.finetune("digits", recipe="probe", verbose=False)
    assert capsys.readouterr().out == ""
    assert any(record.name == "recipes.finetuning" for record in caplog.records)


def test_the_renderer_leaves_the_logger_as_it_was(capsys):
    logger = logging.getLogger("recipes")
    before = logger.level, list(logger.handlers)
    with safe_output():
        with safe_output(), safe_output(verbose=False):
            logger.info("not shown")
            logger.debug("not shown")
        logger.info("shown %s", 1)
        logger.error("failed")
    logger.info("after")
    assert capsys.readouterr() == ("shown 1\n", "failed\n")
    assert (logger.level, list(logger.handlers)) == before


def test_notebooks_show_texts_of_several_lines_as_a_block(monkeypatch, capsys):
    shown = []
    display = SimpleNamespace(display=lambda data, raw: shown.append(data["text/html"]))
    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=None), display=display)
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    with safe_output():
        logging.getLogger("recipes.test").info("a < b\nc")
        logging.getLogger("recipes.test").info("one line")
    assert shown == ['<pre style="white-space: pre; overflow-x: auto">a &lt; b\nc</pre>']
    assert capsys.readouterr().out == "one line\n"


@pytest.mark.parametrize("renderer", [TerminalRenderer, NotebookRenderer])
def test_a_message_is_shown_once_though_the_root_logger_prints_too(renderer, monkeypatch, capsys):
    display = SimpleNamespace(display=lambda data, raw: print(data["text/plain"]))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr("recipes.core.output.renderer", renderer)
    root, handler = logging.getLogger(), logging.StreamHandler()
    root.addHandler(handler)
    try:
        with safe_output():
            logging.getLogger("recipes.test").info("once")
            logging.getLogger("recipes.test").info("two\nlines")
        assert logging.getLogger("recipes").propagate
    finally:
        root.removeHandler(handler)
    assert capsys.readouterr() == ("once\ntwo\nlines\n", "")
