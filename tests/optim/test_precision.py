"""Training in bfloat16: which numbers are rounded, and how far the result is from float32's."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr
from tiny import BATCH, TINY, batch_of, some

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.data.shuffle import indices
from jaxgen.optim.optimizer import Optimizer
from jaxgen.registry import MODELS

CONVOLUTIONS = dataclasses.replace(TINY["vae"], architecture="conv", filters=2)
CASES = {
    **TINY,
    "pixelcnn, plain": dataclasses.replace(TINY["pixelcnn"], block="plain"),
    "pixelcnn, for memory": dataclasses.replace(TINY["pixelcnn"], remat=True, accumulate=2),
    "vae, convolutions": dataclasses.replace(CONVOLUTIONS, scale="shared"),
    "vae, transposed": dataclasses.replace(CONVOLUTIONS, upsample="transpose"),
    "gan, r1": dataclasses.replace(TINY["gan"], d_norm="none", r1=0.5),
}
QUICK = {"vae", "gan"}
"""The others are slow tests."""
LOSS = {"nll": 1e-3, "elbo": 1e-3, "d_loss": 1e-3, "g_loss": 1e-2}
"""How far a loss may be from float32's, relative to it. One rounding to bfloat16's 8 bits is off
by 2e-3 at most, and a loss sums over many; the generator's is that of a D that moved meanwhile."""
COSINE = 0.999
"""Of the angle between the gradient and float32's, at least."""
TRAINED = 5e-3
"""How far the NLL of a trained model may be from float32's, relative to it."""


def _sgd(model):
    """The model with plain SGD of rate 1, so that a step's difference is the gradient."""
    fields = [f.name for f in dataclasses.fields(model)]
    plain = {name: Optimizer("sgd", 1.0, b1=0.0) for name in fields if name.endswith("optimizer")}
    return dataclasses.replace(model, **plain)


@pytest.fixture(
    scope="module",
    params=some(CASES, QUICK),
)
def pair(request):
    """A model in float32 and in bfloat16."""
    model = _sgd(CASES[request.param])
    return model, dataclasses.replace(model, precision="bfloat16")


def _step(model):
    batch = batch_of(BATCH * model.minibatches, model.spec)
    return functools.partial(model.train_step, jax.random.key(1), batch=batch, step=0)


def _moderate(state):
    """The random state, halved: scales that differ by e^10 would magnify every rounding."""
    halved = lambda x: x / 2 if np.issubdtype(x.dtype, np.floating) else x  # noqa: E731
    return jax.tree.map(halved, jax.device_get(state))


def _vector(tree):
    """All of its numbers, float64."""
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


def _operands(jaxpr):
    """The dtypes that matrix products and convolutions take, at any depth."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            yield from (str(v.aval.dtype) for v in eqn.invars)
        for value in jax.tree.leaves(eqn.params, is_leaf=lambda x: isinstance(x, Jaxpr)):
            if isinstance(value, ClosedJaxpr | Jaxpr):
                yield from _operands(getattr(value, "jaxpr", value))


def test_every_product_takes_the_precision(pair, random_state):
    for model, precision in zip(pair, ("float32", "bfloat16"), strict=True):
        operands = list(_operands(jax.make_jaxpr(_step(model))(random_state(model)).jaxpr))
        assert len(operands) > 10
        assert set(operands) == {precision}


def test_one_step_is_close_to_float32(pair, random_state):
    state = _moderate(random_state(pair[0]))
    (new, metrics), (rounded, rounded_metrics) = (jax.jit(_step(m))(state) for m in pair)
    kinds = lambda tree: jax.tree.map(lambda leaf: leaf.dtype, tree)  # noqa: E731
    assert kinds((rounded, rounded_metrics)) == kinds((new, metrics))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(metrics))
    for name in LOSS.keys() & metrics.keys():
        np.testing.assert_allclose(rounded_metrics[name], metrics[name], rtol=LOSS[name])
        assert rounded_metrics[name] != metrics[name]
    for name in {"net", "g", "d"} & vars(state).keys():
        old, *ends = (_vector(getattr(s, name).params) for s in (state, new, rounded))
        one, other = (end - old for end in ends)
        assert one @ other > COSINE * np.linalg.norm(one) * np.linalg.norm(other)


def test_batchnorm_statistics_are_float32(random_state):
    """Of numbers near 1000, bfloat16 has every fourth. In training the old statistics are only
    averaged with the new ones."""
    states = []
    for precision in ("float32", "bfloat16"):
        model = dataclasses.replace(_sgd(TINY["gan"]), precision=precision)
        state = jax.device_get(random_state(model))
        stats = jax.tree.map(lambda x: x + np.float32(1001), state.g.variables["batch_stats"])
        shifted = {**state.g.variables, "batch_stats": stats}
        state = state.replace(g=state.g.replace(variables=shifted))
        states.append(jax.jit(_step(model))(state)[0])
    moved = [state.g.variables["batch_stats"] for state in states]
    assert jax.tree.leaves(moved[0])
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-3),
        moved[1],
        moved[0],
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pixelcnn", "vae"])
def test_training_ends_where_float32_does(name):
    """100 steps on the digits."""
    splits, adam = load(DataConfig()).splits, Optimizer(learning_rate=3e-3)
    sizes = {"pixelcnn": {"features": 8, "blocks": 1, "head": 16}, "vae": {"hidden": (64,)}}
    model = dataclasses.replace(MODELS[name].model, optimizer=adam, dropout=0.0, **sizes[name])
    held = {"x": jnp.asarray(splits["test"].x), "index": jnp.arange(447)}
    train, final = splits["train"].x, []
    evaluate = jax.jit(model.eval_step)
    for precision in ("float32", "bfloat16"):
        trained = dataclasses.replace(model, precision=precision)
        state, step = trained.init(jax.random.key(0), held), jax.jit(trained.train_step)
        before = evaluate(jax.random.key(1), state, held)["nll"].mean()
        for t in range(100):
            ids = indices(0, 50 * t, 50, len(train))[0]
            batch = {"x": train[ids], "index": jnp.arange(50)}
            state, _ = step(jax.random.key(t), state, batch, t)
        final.append(evaluate(jax.random.key(1), state, held)["nll"].mean())
    assert final[0] < 0.9 * before
    assert final[0] != final[1]
    np.testing.assert_allclose(final[1], final[0], rtol=TRAINED)
