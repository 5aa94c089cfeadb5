"""Requests to the server over HTTP, as users and attackers would send them."""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import tensorflow as tf
from assertions import rejects
from makers import picture, png, png_bomb
from odd_images import gif
from serving import b64, get, post, served

import recipes
from recipes.networks.embedding import features_model
from recipes.serving.model import LoadedModel, Overloaded, bounded, load_model

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


def test_rows_and_columns_are_the_results_answers(exported, server):
    result, photos, _ = exported
    files = sorted(photos.glob("*/*.jpg"))[::7]
    contents = [file.read_bytes() for file in files]
    expected = [p.probabilities for p in result.predict(files)]
    status, _, answer = post(server[0], {"instances": [*b64(*contents[:-1]), {"image_bytes": b64(contents[-1])[0]}]})
    assert status == 200
    np.testing.assert_allclose([row["probabilities"] for row in answer["predictions"]], expected, atol=1e-5)
    assert {row["error"] for row in answer["predictions"]} == {""}
    for inputs in (b64(*contents), {"image_bytes": b64(*contents)}):
        path = "/v1/models/flowers/versions/1:predict"
        columns = post(server[0], {"inputs": inputs, "signature_name": "serving_default"}, path)[2]["outputs"]
        np.testing.assert_allclose(columns["probabilities"], expected, atol=1e-5)
        assert columns["class_names"] == result.class_names
        assert columns["class_name"] == [p.class_name for p in result.predict(files)]


def test_features_and_pixels(exported, server):
    result = exported.result
    image = picture((210, 50, 40), 1, (30, 50))
    answer = post(server[0], {"signature_name": "pixels", "instances": [image.tolist()]})[2]
    expected = result.predict(image)[0].probabilities
    np.testing.assert_allclose(answer["predictions"][0]["probabilities"], expected, atol=1e-5)
    answer = post(server[0], {"signature_name": "features", "instances": b64(png(image))})[2]
    assert len(answer["predictions"][0]["features"]) == features_model(result.model).output_shape[-1]


def test_requests_and_answers_are_as_the_schema_says(exported, server):
    """All forms of them, by a small reading of JSON Schema."""
    schema = json.loads((exported.versions / "1" / "assets.extra" / "schema.json").read_text())["$defs"]
    kinds = {"array": list, "object": dict, "string": str, "number": float, "null": type(None)}

    def fits(value, rule) -> bool:
        kind = rule.get("type")
        return (
            (kind is None or isinstance(value, tuple(kinds[k] for k in ([kind] if isinstance(kind, str) else kind))))
            and all(key in value for key in rule.get("required", ()))
            and all(fits(value[key], inner) for key, inner in rule.get("properties", {}).items() if key in value)
            and (kind != "array" or rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", 99))
            and (kind != "array" or all(fits(item, rule["items"]) for item in value))
            and value in rule.get("enum", [value])
            and value == rule.get("const", value)
            and ("anyOf" not in rule or any(fits(value, part) for part in rule["anyOf"]))
            and ("oneOf" not in rule or sum(fits(value, part) for part in rule["oneOf"]) == 1)
        )

    image = png(picture((210, 50, 40), 1))
    both = b64(image, b"no image")
    for request in (
        {"instances": both},
        {"instances": [{"image_bytes": both[0]}], "signature_name": "rows"},
        {"inputs": {"image_bytes": both}},
        {"inputs": both, "signature_name": "features"},
        {"instances": both, "signature_name": "features"},
        {"instances": np.full((1, 4, 4, 3), 7).tolist(), "signature_name": "pixels"},
    ):
        assert fits(request, schema["request"])
        answer = post(server[0], request)[2]
        assert fits(answer, schema["response"]), answer
        assert not fits(answer, schema["error"])
    for wrong in ({"instances": []}, {"instances": [{"b64": 3}]}, {"instances": both, "inputs": both}, {}):
        assert not fits(wrong, schema["request"])
        assert fits(post(server[0], wrong)[2], schema["error"])


def test_what_it_is(server):
    address = server[0]
    assert get(f"{address}/health")[2] == {"status": "ok"}
    assert get(f"{address}/v1/models/flowers")[2]["model_version_status"][0]["state"] == "AVAILABLE"
    about = get(f"{address}/v1/models/flowers/metadata")[2]
    assert about["model_spec"]["version"] == "1"
    signature = about["metadata"]["signature_def"]["signature_def"]["serving_default"]  # TensorFlow Serving's nesting
    assert signature["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    assert signature["outputs"]["probabilities"] == {
        "name": "probabilities:0", "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "3", "name": ""}], "unknown_rank": False},
    }  # fmt: skip
    assert about["metadata"]["recipes"]["proof"]["agreement"] == 1


def test_one_damaged_image_does_not_fail_the_others(exported, server):
    good = next(exported.photos.glob("*/*.jpg")).read_bytes()
    status, _, answer = post(server[0], {"instances": b64(good, good[:300], b"hello")})
    assert status == 200
    assert [bool(row["error"]) for row in answer["predictions"]] == [False, True, True]
    assert answer["predictions"][1]["probabilities"] == [None] * 3 and answer["predictions"][1]["class_name"] == ""


def test_wrong_requests_say_what_is_wrong(exported, server):
    good = next(exported.photos.glob("*/*.jpg")).read_bytes()
    instances = b64(good)
    for body, word in [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ([1, 2], "instances"),
        ({"instances": instances, "inputs": instances}, "instances"),
        ({"instances": []}, "no images"),
        ({"instances": "abc"}, "no images"),
        ({"instances": [17]}, "image 0 must be"),
        ({"instances": [{"b64": "#"}]}, "not valid base64"),
        ({"instances": [{"b64": None}]}, "image 0 must be"),
        ({"instances": instances, "signature_name": "classify"}, "expected one of"),
        ({"instances": instances, "signature_name": ["rows"]}, "expected one of"),
        ({"instances": [{"image": instances[0]}]}, "image 0 has ['image']; expected 'image_bytes'"),
        ({"inputs": {"pixels": instances}}, "inputs has ['pixels']; expected 'image_bytes'"),
        ({"inputs": instances[0]}, "no images"),
        ({"instances": instances * 257}, "at most 256"),
        ({"instances": [[[[1, 2]]]], "signature_name": "pixels"}, "pixels has the wrong form"),
        ({"instances": [[[[1, 2, 300]]]], "signature_name": "pixels"}, "pixels has the wrong form"),
        ({"instances": [[[1], [1, 2]]], "signature_name": "pixels"}, "pixels has the wrong form"),
        ({"instances": b64(b"not an image")}, "not an image"),
        ({"instances": b64(good[: len(good) // 2])}, "damaged"),
        ({"instances": b64(b"")}, "zero bytes"),
    ]:
        status, headers, answer = post(server[0], body)
        assert (status, headers["content-type"]) == (400, "application/json"), answer
        assert word in answer["error"]
    assert get(f"{server[0]}/nothing")[0] == 404
    assert get(f"{server[0]}/v1/models/flowers:predict")[0] == 405
    assert post(server[0], {"instances": instances})[0] == 200


def test_bombs_are_answered_and_the_server_lives(exported, server):
    """30,000 × 30,000 pixels would take 2.7 GB: the memory does not grow by a fraction of that."""
    address, process = server
    before = _resident(process)
    bomb = png_bomb(30_000, 30_000)  # 0.9 MB as a file
    for content in (bomb[:200_000], _animation(1000, 1000, 2000)):
        status, _, answer = post(address, {"instances": b64(content)})
        assert status in (200, 400)
        if content[:3] != b"GIF":
            assert status == 400 and "too large: 30000 × 30000" in answer["error"]
    status, _, answer = post(address, {"instances": b64(bomb)})
    assert status == 413 and "at most 1,048,576 bytes" in answer["error"]
    assert _resident(process) - before < 300 * 2**20
    assert get(f"{address}/health")[0] == 200


def _resident(process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def _animation(width, height, frames) -> bytes:
    """A GIF that repeats its small first frame `frames` times on a large canvas."""
    one = gif(np.zeros((8, 8), np.uint8))
    head, frame = one[: 13 + 384], one[13 + 384 : -1]
    return head[:6] + struct.pack("<HH", width, height) + head[10:] + frame * frames + b"\x3b"


def test_only_the_bounded_of_a_gif_is_kept():
    animation = _animation(20, 20, 3)
    first = bounded(animation)
    assert len(first) < len(animation) and tf.io.decode_gif(first).shape[0] == 1
    np.testing.assert_array_equal(tf.io.decode_gif(first)[0], tf.io.decode_gif(animation)[0])
    comment = b"\x21\xfe\x03abc\x00"
    at = 13 + 384
    assert bounded(animation[:at] + comment + animation[at:]) == first[:at] + comment + first[at:]
    for cut in range(0, len(animation), 7):
        bounded(animation[:cut])  # half a file is no reason to stop
    assert bounded(b"\xff\xd8\xff") == b"\xff\xd8\xff"


def test_a_body_without_a_declared_length_is_cut_off_too(server):
    """Chunked, three times what is allowed."""
    with _connection(server[0]) as wire:
        wire.sendall(b"POST /v1/models/flowers:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):  # the server hung up; its answer may still be there
            for _ in range(48):
                wire.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        assert b" 413 " in wire.recv(100)


def test_who_waits_for_leave_to_send_too_much_is_refused_at_once(server):
    """`Expect: 100-continue`, as curl sends it: an answer, and no wait for a body that is not sent."""
    with _connection(server[0]) as wire:
        head = b"POST /v1/models/flowers:predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9999999"
        wire.sendall(head + b"\r\n\r\n")
        assert wire.recv(100).startswith(b"HTTP/1.1 413 ")


def test_bytes_that_are_not_http_are_rejected_in_json(server):
    with _connection(server[0]) as wire:
        wire.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer = b"".join(iter(lambda: wire.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 400 ") and json.loads(answer.split(b"\r\n\r\n")[1])["error"]


def test_connections_send_at_once_and_are_counted():
    """Without TCP_NODELAY an answer's body waits for the acknowledgement of its head, 40 ms: asyncio sets it only where
    the socket's protocol is named, which is not so of uvicorn's."""
    import uvicorn
    from uvicorn.server import ServerState

    from recipes.serving.connection import connection

    made = []

    class Watched(connection(idle=5, most=1)):
        def connection_made(self, transport):
            super().connection_made(transport)
            made.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def ask():
        config, state = uvicorn.Config(application, lifespan="off"), ServerState()
        config.load()
        listener = socket.socket()  # as uvicorn makes it: no protocol named
        listener.bind(("127.0.0.1", 0))
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(lambda: Watched(config, state, {}), sock=listener)
        answers = []
        streams = [await asyncio.open_connection(*listener.getsockname()) for _ in range(2)]
        for reader, writer in streams:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answers.append(await reader.readuntil(b"\r\n\r\n"))
        error = json.loads(await streams[1][0].read())
        for _, writer in streams:
            writer.close()
        listening.close()
        return answers, error

    (first, second), error = asyncio.run(ask())
    assert made == [1, 1]
    assert first.startswith(b"HTTP/1.1 200 ") and second.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in second.lower() and "too many open connections" in error["error"]


def test_idle_connections_are_closed_and_disturb_nobody(server):
    """64 that say nothing, 8 that stop in their header, 8 in their body."""
    address = server[0]
    silent = [_connection(address) for _ in range(64)]
    header = [_connection(address) for _ in range(8)]
    body = [_connection(address) for _ in range(8)]
    for wire in header:
        wire.sendall(b"GET / HTTP/1.1\r\nHost:")
    for wire in body:
        wire.sendall(b"POST /v1/models/flowers:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    assert get(f"{address}/health")[0] == 200
    for wire in [*silent, *header]:
        assert wire.recv(1) == b""  # closed by the server; the connection itself waits for 30 s at most
        wire.close()
    for wire in body:
        assert b" 408 " in wire.recv(100)
        wire.close()
    assert get(f"{address}/health")[0] == 200


def _connection(address) -> socket.socket:
    parts = urlsplit(address)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def test_many_at_once_are_all_answered(exported, server):
    result, photos, _ = exported
    files = sorted(photos.glob("*/*.jpg"))
    expected = [p.class_name for p in result.predict(files)]
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda f: post(server[0], {"instances": b64(f.read_bytes())}), files * 5))
    assert [status for status, *_ in answers] == [200] * len(answers)
    assert [answer["predictions"][0]["class_name"] for *_, answer in answers] == expected * 5


def test_the_page_is_one_file_that_needs_no_network(server):
    from urllib import request

    with request.urlopen(server[0]) as answer:
        page, policy = answer.read().decode(), answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http://" not in page and "https://" not in page and "src=" not in page
    assert '"classes": ["blue", "green", "red"]' in page


def test_a_full_queue_says_so():
    """Before a thread works, nothing leaves the queue."""

    def answer(image_bytes):
        return {"error": tf.fill(tf.shape(image_bytes), "")}

    model = LoadedModel({"rows": answer}, {"class_names": []}, "m", "1")

    async def ask():
        import queue

        model._waiting = queue.Queue(3)
        first = asyncio.ensure_future(model.predict("rows", [b"a", b"b"]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 images are waiting"):
            await model.predict("rows", [b"c", b"d"])
        waiting = model._waiting
        model.start(2, 3)
        for item in list(waiting.queue):
            model._waiting.put(item)
        assert len(await first) == 2
        model.stop()

    asyncio.run(ask())


def test_who_gives_up_while_being_answered_ends_no_thread():
    """Cancelled between the question and the answer, whichever thread is faster."""
    import threading

    started, goes_on = threading.Event(), threading.Event()

    def answer(image_bytes):
        started.set()
        assert goes_on.wait(10)
        return {"error": tf.fill(tf.shape(image_bytes), "")}

    model = LoadedModel({"rows": answer}, {"class_names": []}, "m", "1")

    async def ask():
        model.start(2, 9)
        task = asyncio.ensure_future(model.predict("rows", [b"a"]))
        await asyncio.to_thread(started.wait, 10)
        waits = asyncio.ensure_future(model.predict("rows", [b"b"]))
        await asyncio.sleep(0)
        for given_up in (task, waits):
            given_up.cancel()
        goes_on.set()
        rows = await model.predict("rows", [b"c"])
        model.stop()
        return rows

    assert asyncio.run(ask()) == [{"error": ""}]


def test_pixels_wait_in_the_queue_too():
    model = LoadedModel({"pixels": lambda pixels: {"sum": tf.reduce_sum(pixels, (1, 2, 3))}}, {}, "m", "1")

    async def ask():
        model.start(4, 2)
        requests = [model.predict_pixels(np.full((n, 2, 2, 3), n, np.int64)) for n in (1, 2)]
        answers = await asyncio.gather(*requests, model.predict_pixels(np.zeros((1, 1, 1, 3))), return_exceptions=True)
        model.stop()
        return answers

    *answers, last = asyncio.run(ask())
    assert answers == [[{"sum": 12}], [{"sum": 24}] * 2]
    assert isinstance(last, Overloaded) or last == [{"sum": 0}]  # as fast as the thread is


def test_too_many_requests_at_once_are_rejected():
    from recipes.serving.limits import Limits
    from recipes.serving.routes import application

    class Busy(LoadedModel):
        async def predict(self, signature, contents):
            raise Overloaded("256 images are waiting; try again")

    model = Busy({"serving_default": None}, {"class_names": ["a"]}, "m", "1")
    model.describe = dict
    app = application(model, "m", Limits(bodies=100))
    for body, why in [
        (json.dumps({"instances": b64(b"x")}).encode(), "256 images are waiting"),
        (bytes(101), "too many"),
    ]:
        start, answer = asyncio.run(_asgi(app, body))
        assert start["status"] == 503 and (b"retry-after", b"1") in start["headers"]
        assert why in json.loads(answer["body"])["error"]


async def _asgi(app, body: bytes) -> list[dict]:
    """What an ASGI application sends to a POST."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/models/m:predict", "headers": [], "query_string": b""}
    await app(scope | {"http_version": "1.1", "root_path": "", "scheme": "http"}, receive, send)
    return sent


def test_changed_files_and_other_folders_are_not_served(exported, tmp_path):
    import shutil

    from recipes.serving.app import serve

    with rejects(recipes.OutputError, "serve.not_an_export"):
        load_model(tmp_path)
    shutil.copytree(exported.versions, tmp_path / "flowers")
    shutil.copytree(exported.versions / "1", tmp_path / "flowers" / "10")
    assert load_model(tmp_path / "flowers").version == "10"
    assert load_model(tmp_path / "flowers" / "1").version == "1"
    with open(tmp_path / "flowers" / "10" / "variables" / "variables.data-00000-of-00001", "r+b") as file:
        file.write(b"?")
    with rejects(recipes.OutputError, "serve.changed"):
        load_model(tmp_path / "flowers")
    (tmp_path / "flowers" / "10" / "assets.extra" / "metadata.json").write_text("{")
    with rejects(recipes.OutputError, "serve.damaged"):
        load_model(tmp_path / "flowers")
    with rejects(recipes.OutputError, "serve.name"):
        serve(exported.versions, name="a{b}")
    handler = logging.FileHandler(tmp_path / "log.txt")  # as a caller may have
    with socket.create_server(("127.0.0.1", 0)) as taken, contextlib.closing(handler):
        port = taken.getsockname()[1]
        with rejects(recipes.RecipesError, "serve.address"):
            serve(exported.versions, port=port)
        assert handler.stream is not None  # configuring the server's log did not close it


@pytest.mark.slow
def test_a_signal_ends_the_server_after_the_requests_that_it_has_accepted(exported):
    """A request that waits for its batch and one that is half read have their answers before the server ends."""
    image = next(exported.photos.glob("*/*.jpg")).read_bytes()
    body = json.dumps({"instances": b64(*[image] * 40)}).encode()
    head = f"POST /v1/models/flowers:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with (
        served(exported.versions, "--batch", "1", "--workers", "1") as (address, process),
        _connection(address) as whole,
        _connection(address) as half,
    ):
        whole.sendall(head + body)
        half.sendall(head + body[:5000])
        assert get(f"{address}/health")[0] == 200  # what came before it has been read
        process.send_signal(signal.SIGTERM)
        half.sendall(body[5000:])
        for wire in (whole, half):
            assert b"".join(iter(lambda: wire.recv(2**16), b"")).startswith(b"HTTP/1.1 200 ")  # noqa: B023
        assert process.wait(30) == 143
