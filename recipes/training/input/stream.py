"""One stream of elements from one input worker, given up where the worker does not answer any more."""

import queue
import threading
import time

import tensorflow as tf

_AHEAD = 2  # elements that wait here
_SILENT = 5.0  # seconds without an element after which it is asked whether the worker lives
_DEADLINE = 5.0  # seconds that it has to answer
_ASK = "/tensorflow.data.DispatcherService/GetVersion"
_END = object()


class Lost(Exception):
    """The worker does not answer."""


def answers(address: str, tries: int = 3) -> bool:
    """Whether an input worker answers there; a second's pause between the tries."""
    import grpc

    for left in reversed(range(tries)):
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            try:
                channel.unary_unary(_ASK)(b"", timeout=_DEADLINE if tries > 1 else 1.0)
                return True
            except grpc.RpcError:
                time.sleep(1.0 if left else 0.0)
    return False


class Remote:
    """The elements of a dataset as an input worker makes them, one after the other, by a thread of their own.

    TensorFlow's client would wait for an hour for a worker that died; the thread that asked it then is left to itself.
    """

    def __init__(self, address: str, dataset: tf.data.Dataset):
        self.address, self._dataset = address, dataset
        self._elements, self._closed = queue.Queue(_AHEAD), threading.Event()
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
        except Exception as error:  # told to whoever asks for the next element
            self._put(error)

    def _put(self, element) -> bool:
        while not self._closed.is_set():
            try:
                self._elements.put(element, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def next(self, deadline: float = float("inf")):
        """The next element; `deadline`: of time.monotonic(), until when it has to come.

        Raises: Lost; what the worker met, as tf.errors.OpError.
        """
        while True:
            wait = min(_SILENT, max(0.0, deadline - time.monotonic()))
            try:
                element = self._elements.get(timeout=wait)
            except queue.Empty:
                if time.monotonic() >= deadline:
                    raise Lost("no image came in time") from None
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

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()
