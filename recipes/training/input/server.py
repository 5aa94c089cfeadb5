"""A process that prepares images for trainings elsewhere: `recipes input-worker`, a tf.data service of its own."""

import logging
import os
import signal
import socket

import tensorflow as tf

from recipes.core.addresses import port_of
from recipes.core.output import safe_output
from recipes.errors import WorkerError

logger = logging.getLogger(__name__)

PORT = 5050


class InputWorker:
    """A dispatcher and a worker of tf.data service in this process, for as long as the object lives.

    The work comes from the training, as a TensorFlow graph, and is done with what that graph may do: read and write the
    files that this process may. Nobody is asked for a password, and both ports are open to whoever reaches the machine:
    run it in a network of your own, as a user who may read the images and nothing else.

    host: the name by which the trainings reach this machine.
    port: at which they ask; the images come from the next one. 0: two free ones.

    Raises: WorkerError when a port is taken, and for a host that is no name or address.
    """

    def __init__(self, host: str | None = None, port: int = PORT):
        service, self.host = tf.data.experimental.service, host or socket.gethostname()
        if port_of(f"{self.host}:1") is None:
            raise WorkerError(f"host is {host!r}; expected this machine's name or address, IPv6 in brackets: [::1]")
        for needed in (port, port + 1) if port else ():
            _check_free(needed)
        try:
            self._dispatcher = service.DispatchServer(
                service.DispatcherConfig(port=port, job_gc_check_interval_ms=10_000, job_gc_timeout_ms=60_000)
            )
            self.port = int(self._dispatcher.target.rpartition(":")[2])
            self._worker = service.WorkerServer(
                service.WorkerConfig(
                    dispatcher_address=f"localhost:{self.port}",
                    worker_address=f"{self.host}:%port%",
                    port=port and port + 1,
                )
            )
        except (tf.errors.OpError, RuntimeError) as error:
            raise WorkerError(f"no server could be started: {str(error).splitlines()[0]}") from error

    @property
    def address(self) -> str:
        """What the training is given in `input_workers`."""
        return f"{self.host}:{self.port}"


def _check_free(port: int) -> None:
    """gRPC would share the port with another process, which would get half of the questions."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
        except OSError as error:
            raise WorkerError(f"port {port} cannot be had: {error.strerror}; choose another by --port") from error


@safe_output()
def serve(host: str | None = None, port: int = PORT) -> None:
    """Work until a signal ends the process."""
    worker = InputWorker(host, port)
    logger.info(
        f"input worker on {os.cpu_count()} cores; whoever reaches its ports can have it read and write files\n"
        f"next:   recipes finetune FOLDER --input-workers {worker.address}",
        flush=True,
    )
    while True:
        signal.pause()
