"""Who the workers of a job are, and how they meet."""

import json
import socket
import threading

import numpy as np
import pytest
from makers import addresses

from recipes.data.images import ImageData, Splits
from recipes.distributed.cluster import as_told
from recipes.distributed.peers import Job, Peers, job_of, leads
from recipes.distributed.same_data import facts_of
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
    "environment, said",
    [
        ({"TF_CONFIG": "{"}, "is no JSON"),
        ({"TF_CONFIG": "[1]"}, "has no cluster"),
        ({"TF_CONFIG": json.dumps({"cluster": TWO})}, "no task"),
        (told({**TWO, "ps": ["d:4"]}), r"has \['ps'\]"),
        (told({"worker": "a:1"}), "no list of workers"),
        (told({"worker": ["a:1", "b"]}), "'b', which is no host:port"),
        (told({"worker": ["a:1", "b:99999"]}), "'b:99999', which is no host:port"),
        (told({"worker": ["a:0", "b:1"]}), "'a:0', which is no host:port"),
        (told({"worker": ["::1:5", "b:1"]}), "'::1:5', which is no host:port"),
        (told({"worker": ["a:1", "a:1"]}), "one address twice"),
        (told(TWO, index=2), "worker 2, which its cluster does not have"),
        (told(TWO, "evaluator"), "evaluator 0"),
        (told(TWO, index="0"), "worker 0, which"),
    ],
)
def test_a_tf_config_that_is_none(environment, said):
    with pytest.raises(ClusterError, match=said):
        job_of(environment)


def met(asked, names=None):
    """What becomes of workers that were asked for these things: each its Peers, or its error."""
    names, found = names or addresses(len(asked)), {}

    def one(number):
        try:
            found[number] = Peers(Job(names, number), asked[number])
        except ClusterError as error:
            found[number] = error

    threads = [threading.Thread(target=one, args=[number]) for number in range(len(asked))]
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
    with pytest.raises(PeerLost, match="worker 1 is gone"):
        first.receive(1)
    first.close()
    with pytest.raises(PeerLost, match="worker 0 is gone"):
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
def test_a_wait_that_is_none(monkeypatch, seconds):
    monkeypatch.setenv("RECIPES_PEER_WAIT", seconds)
    with pytest.raises(ClusterError, match=f"RECIPES_PEER_WAIT is '{seconds}'; expected seconds"):
        Peers(Job(addresses(2), 0), {})


def test_other_commands_and_absent_workers_are_told(monkeypatch):
    monkeypatch.setenv("RECIPES_PEER_WAIT", "60")
    threads, found = met([{"seed": 1}, {"seed": 2}, {"seed": 1}])
    for thread in threads:
        thread.join()
    assert {type(error) for error in found.values()} == {ClusterError}
    assert all("seed is 1 at worker 0 and 2 at worker 1" in str(error) for error in found.values())
    monkeypatch.setenv("RECIPES_PEER_WAIT", "1")
    names = addresses(2)
    with pytest.raises(ClusterError, match=f"after 1 s worker 1 .{names[1]}. has not come"):
        Peers(Job(names, 0), {})
    with pytest.raises(ClusterError, match=r"worker 0 at .* cannot be reached"):
        Peers(Job(names, 1), {})


def test_other_images_are_other_facts():
    images = np.zeros((4, 2, 2, 3), np.uint8)
    data = ImageData(images, np.array([0, 1, 0, 1]), ("a", "b"), tuple("wxyz"))
    facts = facts_of(Splits(data))
    assert facts == facts_of(Splits(data.subset([0, 1, 2, 3]))) and facts["train images"] == 4
    assert facts != facts_of(Splits(ImageData(images + 1, data.labels, data.class_names, data.names)))
    assert facts != facts_of(Splits(ImageData(images, data.labels[::-1], data.class_names, data.names)))
    assert facts != facts_of(Splits(data, validation=data))


def test_a_file_that_cannot_be_read_is_left_to_the_audit(tmp_path):
    """It is a finding there, and no difference where every worker lacks it."""
    there, gone = tmp_path / "a.png", tmp_path / "gone.png"
    there.write_bytes(b"picture")
    data = ImageData([str(there), str(gone)], np.array([0, 1]), ("a", "b"), (str(there), str(gone)))
    facts = facts_of(Splits(data))
    assert facts == facts_of(Splits(data))
    gone.write_bytes(b"here")
    assert facts != facts_of(Splits(data))


def test_an_error_that_is_passed_on_names_the_worker_where_it_happened_once():
    at_0 = as_told({"failed": "memory ran out", "kind": "RecipeError"}, 2)
    at_1 = as_told({"do": "fail", "kind": type(at_0).__name__, "text": str(at_0)})
    assert type(at_1) is RecipeError and str(at_0) == str(at_1) == "worker 2: memory ran out"
    assert str(as_told({"do": "fail", "kind": "DataError", "text": "a.jpg is gone"})) == "worker 0: a.jpg is gone"
    assert str(as_told({"do": "fail", "kind": "KeyError", "text": "worker"})) == "worker 0: worker"
