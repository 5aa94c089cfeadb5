"""Every optimizer meets every contract on the backend of this process; no public optimizer is left out."""

import keras
import pytest
from optimizer_contracts import CONTRACTS, OPTIMIZERS

import optimizers


@pytest.mark.slow
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_contract(contract, make, tmp_path):
    contract(make, tmp_path)


def test_every_public_optimizer_has_contracts():
    public = {name for name in optimizers.__all__ if _is_optimizer(getattr(optimizers, name))}
    assert public == {type(make(0.1)).__name__ for make in OPTIMIZERS.values()}


def _is_optimizer(thing):
    return isinstance(thing, type) and issubclass(thing, keras.optimizers.Optimizer)
