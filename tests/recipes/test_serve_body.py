"""The files in a request's body, and what comes of bodies that are no such thing."""

import base64
import email.policy
import json
import re
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from urllib import request

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import picture, png
from serving import get

from recipes.serving.body import is_form, is_image, read_form

TYPE = "multipart/form-data; boundary=xyz"


def form(*files: bytes, end: bytes = b"--xyz--\r\n", **fields: str) -> bytes:
    """A body as browsers send it."""
    parts = [
        b'Content-Disposition: form-data; name="%s"\r\n\r\n%s' % (k.encode(), v.encode()) for k, v in fields.items()
    ]
    head = (
        b'Content-Disposition: form-data; name="image"; filename="a \xc3\xa4.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    return b"".join(b"--xyz\r\n" + part + b"\r\n" for part in [*parts, *(head + file for file in files)]) + end


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=300).filter(lambda b: b"\r\n--xyz" not in b"\r\n" + b), max_size=5))
def test_files_arrive_as_they_were_sent(files):
    assert read_form(form(*files), TYPE, 5) == ("", files)
    assert read_form(b"preamble\r\n" + form(*files, signature_name="features") + b"epilogue", TYPE, 5) == (
        "features", files,
    )  # fmt: skip


def test_a_form_of_another_writer_is_read():
    """Python's own MIME writer: other boundary, other order of headers, quoted."""
    sent, content = MIMEMultipart("form-data"), bytes(range(256)) * 3
    part = MIMEApplication(content, _encoder=lambda part: None)
    part.add_header("Content-Disposition", "form-data", name="file", filename="ä.jpg")
    sent.attach(part)
    head, _, body = sent.as_bytes(policy=email.policy.HTTP).partition(b"\r\n\r\n")
    kind = re.sub(r"\s+", " ", re.search(rb"(?is)content-type: (.*?boundary=\S+)", head)[1].decode())
    signature, files = read_form(body.replace(b"\n", b"\r\n").replace(b"\r\r\n", b"\r\n"), kind, 3)
    assert signature == "" and len(files) == 1


def test_parts_in_base64_are_images():
    content = png(picture((210, 50, 40), 1))
    text = base64.encodebytes(content).replace(b"\n", b"\r\n")  # with line breaks
    assert read_form(form(text, b"data:image/png;base64," + text), TYPE, 3) == ("", [content, content])
    assert read_form(form(image=base64.b64encode(content).decode(), signature_name="features"), TYPE, 3) == (
        "features", [content],
    )  # fmt: skip
    with pytest.raises(ValueError, match="or in base64"):
        read_form(form(image=base64.b64encode(b"no image").decode()), TYPE, 3)


@pytest.mark.parametrize(
    ("body", "kind", "word"),
    [
        (form(b"a"), "multipart/form-data", "no boundary"),
        (b"", TYPE, "ends before"),
        (form(b"a", end=b""), TYPE, "ends before"),
        (form(b"a")[:-12], TYPE, "ends before"),
        (form(b"a", b"b", b"c"), TYPE, "more than 2"),
        (form(*[b""] * 1000), TYPE, "more than 2"),
        (form(b"a", crops="10"), TYPE, "the field 'crops' is not a file"),
        (b"--xyz\r\nno headers\r\n--xyz--", TYPE, "no empty line after its headers"),
        (b"--xyz\r\n" + b"a: b\r\n" * 2000 + b"\r\n\r\n--xyz--", TYPE, "no empty line after its headers"),
    ],
)
def test_wrong_forms_say_what_is_wrong(body, kind, word):
    with pytest.raises(ValueError, match=word):
        read_form(body, kind, 2)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.text(max_size=40), st.integers(0, 3))
def test_no_body_raises_anything_else(body, kind, most):
    for content_type in (kind, "multipart/form-data; " + kind, TYPE):
        is_form(content_type), is_image(body, content_type)
        for content in (body, b"--xyz\r\n" + body + b"\r\n--xyz--", form(body)):
            try:
                read_form(content, content_type, most)
            except ValueError:
                continue


def send(address, body: bytes, kind: str):
    return get(request.Request(f"{address}/v1/models/flowers:predict", body, {"Content-Type": kind}))


def test_the_server_reads_files_and_forms(exported, server):
    result, photos, _ = exported
    contents = [file.read_bytes() for file in sorted(photos.glob("*/*.jpg"))[::12]]
    expected = [p.probabilities for p in result.predict(contents)]
    status, _, answer = send(server[0], form(*contents, b"no image"), TYPE)
    assert status == 200 and [bool(row["error"]) for row in answer["predictions"]] == [False] * len(contents) + [True]
    np.testing.assert_allclose([r["probabilities"] for r in answer["predictions"][:-1]], expected, atol=1e-5)
    for kind in ("image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", "application/json"):
        status, _, answer = send(server[0], contents[0], kind)
        assert status == 200 and len(answer["predictions"]) == 1
        np.testing.assert_allclose(answer["predictions"][0]["probabilities"], expected[0], atol=1e-5)
    content = png(picture((210, 50, 40), 1))
    assert "features" in send(server[0], form(content, signature_name="features"), TYPE)[2]["predictions"][0]
    for body, kind, code, word in [
        (b"no image", "image/jpeg", 400, "not an image"),
        (b"", "image/png", 400, "zero bytes"),
        (form(), TYPE, 400, "the form has no images"),
        (form(content, signature_name="classify"), TYPE, 400, "expected one of"),
        (form(content, signature_name="pixels"), TYPE, 400, "pixels has the wrong form"),
        (form(content, end=b""), TYPE, 400, "ends before"),
        (form(*[b""] * 300), TYPE, 400, "more than 256"),
        (form(bytes(2**20)), TYPE, 413, "too large"),
        (b"{", "application/json", 400, "not JSON"),
    ]:
        status, headers, answer = send(server[0], body, kind)
        assert (status, headers["content-type"]) == (code, "application/json") and word in answer["error"], answer
    assert send(server[0], json.dumps({"instances": []}).encode(), "image/jpeg")[0] == 400


TIFF = b"II*\x00" + bytes(40)


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b'{"instances": []}', "application/octet-stream", False),
        (b'\n {"instances": []}', "image/jpeg", False),
        (b"no image", "application/octet-stream", True),
        (b"no image", "application/json", False),
        (TIFF, "application/x-www-form-urlencoded", True),
        (b"", "application/json", False),
    ],
)
def test_json_is_no_image_and_an_unsupported_format_is_one(body, kind, expected):
    assert is_image(body, kind) is expected


def test_a_part_of_bytes_without_a_file_name_is_a_file():
    head = b'--xyz\r\nContent-Disposition: form-data; name="image"\r\nContent-Type: application/octet-stream\r\n\r\n'
    assert read_form(head + b"content\r\n--xyz--", "multipart/form-data; boundary=xyz", 2) == ("", [b"content"])
