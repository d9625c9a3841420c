"""FLOPs against closed forms and against XLA's count of single operations."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from linear import Linear

from jaxgen.data.config import DataConfig
from jaxgen.evaluation.describe import describe, parameters
from jaxgen.evaluation.flops import flops
from jaxgen.optim.net import Net, create_state
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import train_net
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.spec import DataSpec


def shaped(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def xla(function, *args):
    """XLA's count, before it optimizes."""
    return jax.jit(function).lower(*args).cost_analysis()["flops"]


def test_products_are_counted_with_their_batches():
    assert flops(jnp.matmul, shaped(3, 4), shaped(4, 5)) == 2 * 3 * 4 * 5
    attend = lambda q, k: jnp.einsum("bqhf,bkhf->bhqk", q, k)  # noqa: E731
    assert flops(attend, shaped(2, 7, 3, 4), shaped(2, 6, 3, 4)) == 2 * 2 * 3 * 7 * 6 * 4
    # Forward, and two products backward.
    loss = lambda w, x: jnp.square(x @ w).sum()  # noqa: E731
    both = flops(jax.grad(loss, argnums=(0, 1)), shaped(4, 5), shaped(3, 4))
    assert both == 3 * 2 * 3 * 4 * 5
    assert flops(jnp.tanh, shaped(3, 4)) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"window_strides": (1, 1), "padding": "SAME"},
        {"window_strides": (2, 2), "padding": "SAME"},
        {"window_strides": (1, 1), "padding": "VALID"},
        {"window_strides": (1, 1), "padding": ((3, 1), (0, 2))},
        {"window_strides": (1, 1), "padding": ((2, 2), (2, 2)), "lhs_dilation": (2, 2)},
        {"window_strides": (1, 1), "padding": "SAME", "rhs_dilation": (2, 1)},
        {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 2},
        {"window_strides": (1, 1), "padding": "SAME", "batch_group_count": 2},
    ],
)
def test_a_convolution_costs_what_xla_says(options):
    groups = options.get("feature_group_count", 1)

    def convolve(x, w):
        return lax.conv_general_dilated(x, w, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)

    shapes = shaped(2, 9, 8, 6), shaped(3, 4, 6 // groups, 4)
    assert flops(convolve, *shapes) == pytest.approx(xla(convolve, *shapes), rel=1e-6)
    gradient = jax.grad(lambda w, x: convolve(x, w).sum())
    assert flops(gradient, *shapes[::-1]) > 0


def test_loops_count_as_often_as_they_run():
    def step(x, _):
        return x @ x, None

    def scanned(x):
        return lax.scan(step, x, None, length=7)[0]

    one = 2 * 4**3
    assert flops(scanned, shaped(4, 4)) == 7 * one
    assert xla(scanned, shaped(4, 4)) < 2 * one  # what XLA makes of it
    assert flops(lambda x: lax.fori_loop(0, 5, lambda i, x: x @ x, x), shaped(4, 4)) == 5 * one
    nested = lambda x: lax.map(scanned, x)  # noqa: E731
    assert flops(nested, shaped(3, 4, 4)) == 3 * 7 * one
    branch = lambda p, x: lax.cond(p, lambda x: x @ x @ x, lambda x: x @ x, x)  # noqa: E731
    assert flops(branch, True, shaped(4, 4)) == 2 * one
    # What is computed again in the backward pass is counted again.
    block = lambda x: jnp.sin(x @ x) @ x  # noqa: E731
    loss = lambda f: jax.grad(lambda x: f(x).sum())  # noqa: E731
    assert flops(loss(jax.checkpoint(block)), shaped(4, 4)) > flops(loss(block), shaped(4, 4))
    custom = jax.custom_vjp(lambda x: x @ x)
    custom.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x,))
    assert flops(jax.jit(custom), shaped(4, 4)) == one
    assert flops(loss(custom), shaped(4, 4)) == 2 * one


@pytest.mark.parametrize("parts", [1, 4])
def test_a_batch_in_parts_costs_what_the_whole_one_does(parts):
    optimizer, net = Optimizer(), Net({"params": jnp.ones((5, 3))}, None)
    net = Net(net.variables, optimizer.make().init(net.params))

    def loss(variables, batch):
        return jnp.square(batch["x"] @ variables["params"]).mean(), ({}, {})

    def step(state, batch):
        return train_net(optimizer, 0.9, state, loss, batch, 0, None, parts)

    assert flops(step, create_state(net), {"x": shaped(8, 5)}) == 2 * 2 * 8 * 5 * 3


def test_a_description_counts_parameters_and_products():
    spec = DataSpec(4, 5, levels=3)
    run = Run("line", Linear(spec, latents=3), DataConfig(), TrainConfig(batch_size=6))
    text = describe(run, "made up")
    state = run.model.init(jax.random.key(0), spec.example(1))
    assert parameters(state) == 20 * 3 + 20 + 1
    assert "parameters    81" in text and "made up" in text
    assert "line: x = W z + b(label) + noise" in text and "kFLOP per image" in text
