"""Serve an exported SavedModel over HTTP."""

import os

from recipes.core.output import safe_output
from recipes.errors import OutputError, RecipesError
from recipes.serving.limits import Limits
from recipes.serving.model import load_model


@safe_output()
def serve(
    directory: str | os.PathLike, *, host: str = "127.0.0.1", port: int = 8501, name: str | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> None:  # fmt: skip
    """Serve a SavedModel until a signal arrives.

    Args:
        directory: A folder of versions ("serving"), of which the newest is served, or one version ("serving/3").
        host: Address to listen on.
        port: Port to listen on; 0 for any free port.
        name: Name of the model in the routes; None for the folder's name.
        limits: The limits of the server.

    Raises:
        OutputError: If there is no SavedModel of `recipes`, its files have changed, or its name cannot be in a URL.
        RecipesError: If the extra `serve` is not installed, or the address is in use.
    """
    try:
        import uvicorn

        from recipes.serving.connection import Server, connection
        from recipes.serving.routes import application
    except ImportError as error:
        raise RecipesError(
            f"serving needs {error.name}; install it with pip install 'keras-recipes[serve]'",
            code="serve.not_installed",
            package=error.name,
        ) from error
    model = load_model(directory)
    name = name or model.name
    if not name or any(c in "/:?#%{}\\ " for c in name):
        raise OutputError(
            f"the model's name is {name!r}; expected a name without spaces and / : ? # % {{ }} \\. Choose one with "
            f"--name",
            code="serve.name",
            name=name,
        )
    config = uvicorn.Config(
        application(model, name, limits), host=host, port=port, http=connection(limits.idle, limits.connections),
        ws="none", log_level="warning", access_log=False, timeout_keep_alive=int(limits.idle) or 1,
        timeout_graceful_shutdown=30, server_header=False,
        log_config=None,  # uvicorn's default closes all log handlers; absl's closes stderr
    )  # fmt: skip
    try:
        sockets = [config.bind_socket()]
    except SystemExit:
        raise RecipesError(
            f"the server cannot listen on {host}:{port}; choose another --port",
            code="serve.address",
            host=host,
            port=port,
        ) from None
    model.warm()
    url = f"http://{f'[{host}]' if ':' in host else host}:{sockets[0].getsockname()[1]}"
    Server(config, f"{model}\npage: {url}/\nREST: {url}/v1/models/{name}:predict").run(sockets)
