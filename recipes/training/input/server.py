"""Prepare images for trainings on other machines: the tf.data service of `recipes input-worker`."""

import logging
import os
import signal
import socket

import tensorflow as tf

from recipes.core.addresses import INPUT_PORT, port_of
from recipes.core.output import safe_output
from recipes.errors import WorkerError

logger = logging.getLogger(__name__)


class InputWorker:
    """Run a tf.data service dispatcher and worker in this process until the object is deleted.

    The training sends its work as a TensorFlow graph, which may read and write every file that this process may. There
    is no password, and both ports are open to every machine that reaches this one. Therefore run it in a private
    network, as a user who may read the images and nothing else.

    Args:
        host: Name by which the trainings reach this machine; default: its host name.
        port: Port to which the trainings connect; images are sent from the next higher port. 0 selects two free ports.

    Raises:
        WorkerError: If a port is in use, if `host` is neither a name nor an address, or if TensorFlow fails to start
            the server (`code` "worker.port", "worker.host" and "worker.start").
    """

    def __init__(self, host: str | None = None, port: int = INPUT_PORT) -> None:
        service, self.host = tf.data.experimental.service, host or socket.gethostname()
        if port_of(f"{self.host}:1") is None:
            raise WorkerError(
                f"host is {host!r}; expected this machine's name or address, IPv6 in brackets: [::1]",
                code="worker.host",
                host=host,
            )
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
            raise WorkerError(
                f"The input worker could not be started: {str(error).splitlines()[0]}", code="worker.start"
            ) from error

    @property
    def address(self) -> str:
        """Return the address of this worker in the form that `input_workers` expects."""
        return f"{self.host}:{self.port}"


def _check_free(port: int) -> None:
    """Raise WorkerError if the port is in use, because gRPC would share it with the other process."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
        except OSError as error:
            raise WorkerError(
                f"port {port} cannot be used: {error.strerror}; choose another one with --port",
                code="worker.port",
                port=port,
            ) from error


@safe_output()
def serve(host: str | None = None, port: int = INPUT_PORT) -> None:
    """Run an input worker until a signal ends the process."""
    worker = InputWorker(host, port)
    logger.info(
        f"input worker on {os.cpu_count()} cores; anyone who can reach its ports can read and write files through it\n"
        f"next:   recipes finetune FOLDER --input-workers {worker.address}"
    )
    while True:
        signal.pause()
