"""Stream elements from one input worker, and abandon the stream when the worker no longer answers."""

import queue
import threading
import time
from typing import Any, Self

import tensorflow as tf

_AHEAD = 2  # number of elements that are fetched ahead of time
_SILENT = 5.0  # seconds without an element after which the connection is checked
_DEADLINE = 5.0  # seconds within which a worker must answer the check
_VERSION_CALL = "/tensorflow.data.DispatcherService/GetVersion"
_END = object()


class Lost(Exception):
    """Report that the worker does not answer or sends no more elements."""


def answers(address: str, tries: int = 3) -> bool:
    """Return whether an input worker answers at an address; wait one second between attempts."""
    import grpc

    for left in reversed(range(tries)):
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            try:
                channel.unary_unary(_VERSION_CALL)(b"", timeout=_DEADLINE if tries > 1 else 1.0)
                return True
            except grpc.RpcError:
                time.sleep(1.0 if left else 0.0)
    return False


class Remote:
    """Iterate over the elements of a dataset that an input worker computes; a thread fetches them.

    TensorFlow's client waits up to an hour for a worker that has died. In that case, the thread is abandoned.

    Args:
        address: The worker, as "host:port".
        dataset: The dataset that the worker computes; it is sent as a graph.
    """

    def __init__(self, address: str, dataset: tf.data.Dataset) -> None:
        self.address, self._dataset = address, dataset
        self._elements: queue.Queue[Any] = queue.Queue(_AHEAD)
        self._closed = threading.Event()
        threading.Thread(target=self._pull, name=f"input worker {address}", daemon=True).start()

    def _pull(self) -> None:
        try:
            with tf.device("CPU:0"):
                service = tf.data.experimental.service.distribute(
                    "parallel_epochs", f"grpc://{self.address}", compression=None, max_outstanding_requests=_AHEAD
                )
                for element in self._dataset.apply(service):
                    if not self._put(element):
                        return
            self._put(_END)
        except Exception as error:  # `next` raises the error
            self._put(error)

    def _put(self, element: Any) -> bool:
        while not self._closed.is_set():
            try:
                self._elements.put(element, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def next(self, deadline: float = float("inf")) -> Any:
        """Return the next element.

        Args:
            deadline: Time by which the element must arrive, in seconds of `time.monotonic()`.

        Raises:
            Lost: If the worker does not answer, sends nothing in time, or has no more elements.
            tf.errors.OpError: If the worker failed to compute the element.
        """
        while True:
            wait = min(_SILENT, max(0.0, deadline - time.monotonic()))
            try:
                element = self._elements.get(timeout=wait)
            except queue.Empty:
                if time.monotonic() >= deadline:
                    raise Lost("it sent no image in time") from None
                if not answers(self.address):
                    raise Lost("it does not answer") from None
                continue
            if element is _END:
                raise Lost("it has no more batches")
            if isinstance(element, tf.errors.UnavailableError):
                raise Lost(str(element).splitlines()[0])
            if isinstance(element, Exception):
                raise element
            return element

    def close(self) -> None:
        self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
