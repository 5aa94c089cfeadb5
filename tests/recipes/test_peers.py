"""Who the workers of a job are, and how they meet."""

import json
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from assertions import rejects
from makers import addresses

from recipes.data.images import ImageData, Splits
from recipes.distributed.job import Job, job_of, leads
from recipes.distributed.messages import error_from_message, failure_message
from recipes.distributed.peers import Peers
from recipes.distributed.same_data import data_facts
from recipes.errors import ClusterError, PeerLost, RecipeError

TWO = {"worker": ["a:1", "b:2"]}


def told(cluster, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def test_a_job_is_what_tf_config_says():
    assert job_of(told(TWO, index=1)) == Job(("a:1", "b:2"), 1)
    chief = {"chief": ["c:3"], "worker": ["a:1"]}
    assert job_of(told(chief, "chief")) == Job(("c:3", "a:1"), 0)
    assert job_of(told(chief)) == Job(("c:3", "a:1"), 1)
    assert job_of({}) is job_of({"TF_CONFIG": "{}"}) is job_of(told({"worker": ["a:1"]})) is None
    assert leads()


@pytest.mark.parametrize(
    "environment, code",
    [
        ({"TF_CONFIG": "{"}, "json"),
        ({"TF_CONFIG": "[1]"}, "incomplete"),
        ({"TF_CONFIG": json.dumps({"cluster": TWO})}, "incomplete"),
        (told({**TWO, "ps": ["d:4"]}), "roles"),
        (told({"worker": "a:1"}), "workers"),
        (told({"worker": ["a:1", "b"]}), "address"),
        (told({"worker": ["a:1", "b:99999"]}), "address"),
        (told({"worker": ["a:0", "b:1"]}), "address"),
        (told({"worker": ["::1:5", "b:1"]}), "address"),
        (told({"worker": ["a:1", "a:1"]}), "repeated_address"),
        (told(TWO, index=2), "task"),
        (told(TWO, "evaluator"), "task"),
        (told(TWO, index="0"), "task"),
    ],
)
def test_a_malformed_tf_config(environment, code):
    with rejects(ClusterError, f"cluster.tf_config.{code}") as error:
        job_of(environment)
    assert environment["TF_CONFIG"] in str(error.value)


def met(commands, names=None):
    """Start a worker with each of these commands; returns their threads, and each one's Peers or error."""
    names, found = names or addresses(len(commands)), {}

    def one(number):
        try:
            found[number] = Peers(Job(names, number), commands[number])
        except ClusterError as error:
            found[number] = error

    threads = [threading.Thread(target=one, args=[number]) for number in range(len(commands))]
    for thread in threads:
        thread.start()
    return threads, found


def test_workers_meet_and_talk_and_notice_who_goes(monkeypatch):
    monkeypatch.setenv("RECIPES_PEER_WAIT", "60")
    names = addresses(3)
    threads, found = met([{"seed": 1}] * 3, names)
    with socket.socket() as stranger:
        if not stranger.connect_ex(("127.0.0.1", int(names[0].split(":")[1]))):
            stranger.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")  # what TensorFlow left of a job before
        for thread in threads:
            thread.join()
    first, *others = (found[number] for number in range(3))
    first.send({"do": "x" * 2**21})
    assert [other.receive() for other in others] == [{"do": "x" * 2**21}] * 2
    others[1].send({"ready": True})
    assert first.others == [1, 2] and first.receive(2) == {"ready": True}
    others[0].close()
    with rejects(PeerLost, "cluster.peer_lost", match="worker 1 has stopped"):
        first.receive(1)
    first.close()
    with rejects(PeerLost, "cluster.peer_lost", match="worker 0 has stopped"):
        others[1].receive()
    others[1].close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_workers_meet_by_ipv6(monkeypatch):
    monkeypatch.setenv("RECIPES_PEER_WAIT", "60")
    threads, found = met([{}] * 2, [name.replace("127.0.0.1", "[::1]") for name in addresses(2)])
    for thread in threads:
        thread.join()
    found[0].send({"do": "meet"})
    assert found[1].receive() == {"do": "meet"}
    for peers in found.values():
        peers.close()


@pytest.mark.parametrize("seconds", ["soon", "-1", "nan", ""])
def test_a_wait_that_is_no_number_of_seconds(monkeypatch, seconds):
    monkeypatch.setenv("RECIPES_PEER_WAIT", seconds)
    with rejects(ClusterError, "cluster.wait", value=seconds):
        Peers(Job(addresses(2), 0), {})


def test_other_commands_and_absent_workers_are_errors(monkeypatch):
    monkeypatch.setenv("RECIPES_PEER_WAIT", "60")
    threads, found = met([{"seed": 1}, {"seed": 2}, {"seed": 1}])
    for thread in threads:
        thread.join()
    assert {error.code for error in found.values()} == {"cluster.other_command"}
    assert all("seed is 1 at worker 0 and 2 at worker 1" in str(error) for error in found.values())
    monkeypatch.setenv("RECIPES_PEER_WAIT", "1")
    names = addresses(2)
    with rejects(ClusterError, "cluster.missing_worker", workers=(1,), match=names[1]):
        Peers(Job(names, 0), {})
    with rejects(ClusterError, "cluster.unreachable", address=names[0]):
        Peers(Job(names, 1), {})


def test_other_images_are_other_facts():
    images = np.zeros((4, 2, 2, 3), np.uint8)
    data = ImageData(images, np.array([0, 1, 0, 1]), ("a", "b"), tuple("wxyz"))
    facts = data_facts(Splits(data))
    assert facts == data_facts(Splits(data.subset([0, 1, 2, 3]))) and facts["train images"] == 4
    assert facts != data_facts(Splits(ImageData(images + 1, data.labels, data.class_names, data.names)))
    assert facts != data_facts(Splits(ImageData(images, data.labels[::-1], data.class_names, data.names)))
    assert facts != data_facts(Splits(data, validation=data))


def test_a_file_that_cannot_be_read_is_left_to_the_audit(tmp_path):
    """It is a finding there, and no difference where every worker lacks it."""
    existing, missing = tmp_path / "a.png", tmp_path / "gone.png"
    existing.write_bytes(b"picture")
    data = ImageData([str(existing), str(missing)], np.array([0, 1]), ("a", "b"), (str(existing), str(missing)))
    facts = data_facts(Splits(data))
    assert facts == data_facts(Splits(data))
    missing.write_bytes(b"here")
    assert facts != data_facts(Splits(data))


def passed_on(error, number):
    return error_from_message(json.loads(json.dumps(failure_message(error))), number)


def test_an_error_that_is_passed_on_names_the_worker_where_it_happened_once():
    error = RecipeError(
        "memory ran out", code="recipe.test", worker=7, path=Path("a"), names=("x", "y"), value=object()
    )
    at_0 = passed_on(error, 2)
    at_1 = passed_on(at_0, 0)
    assert type(at_1) is RecipeError and str(at_0) == str(at_1) == "worker 2: memory ran out"
    assert (at_1.code, at_1.worker, at_1.path, at_1.names) == ("recipe.test", 7, "a", ("x", "y"))
    lost = passed_on(PeerLost("worker 1 has stopped"), 3)
    assert type(lost) is PeerLost and str(lost).count("run the same command") == 1
    assert type(passed_on(KeyError("worker"), 0)) is ClusterError
