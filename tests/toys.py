"""Models of every kind that the contract allows, as small as they can be: the contract is proved on
them, from outside the package. `factorized` stands in CONTRIBUTING.md, and is read from there."""

import dataclasses
import importlib.util
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.abilities import Encodes, Samples, Translates
from jaxgen.data.config import DataConfig
from jaxgen.distributions.normal import normal_like, normal_log_prob
from jaxgen.model import Metric, Model, Request, example_keys
from jaxgen.optim.net import Net, NetState, create_state, descend
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import mean_over, train_net
from jaxgen.registry import Preset
from jaxgen.runs.config import TrainConfig
from jaxgen.spec import DataSpec

NLL = Metric("negative log-likelihood", "nats per image", "lower", likelihood=True)
ERROR = Metric("squared error", "per sub-pixel", "lower")


def net_of(optimizer: Optimizer, params: Any) -> Net:
    return Net({"params": params}, optimizer.make().init(params))


def factorized() -> type[Model]:
    """The model that CONTRIBUTING.md shows, from a file of its own."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    [code] = re.findall(r"```python\n((?:(?!```).)*class Factorized.*?)```", text, re.S)
    path = Path(tempfile.mkdtemp()) / "factorized.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("factorized", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["factorized"] = module
    spec.loader.exec_module(module)
    return module.Factorized


@flax.struct.dataclass
class GrowingState:
    """A net for each block, from the start."""

    low: Net
    high: Net


@dataclass(frozen=True)
class Growing(Model[GrowingState], Samples):
    """A factorized density of 2x2 pixels that are one, to which single pixels join."""

    grow_at: int = 4
    """The step from which on single pixels are trained too."""
    grown: bool = True
    """Whether they are; `at` sets it."""
    optimizer: Optimizer = Optimizer(learning_rate=0.1)
    """The optimizer of each block."""

    metrics: ClassVar = {"nll": NLL}
    monitor: ClassVar = "nll"

    @property
    def changes(self):
        return (self.grow_at,)

    def at(self, step):
        return dataclasses.replace(self, grown=step >= self.grow_at)

    def init(self, key, batch):
        h, w, c = self.spec.shape
        low = jnp.zeros((h // 2, w // 2, c, self.spec.levels))
        high = jnp.zeros((h, w, c, self.spec.levels))
        return GrowingState(net_of(self.optimizer, low), net_of(self.optimizer, high))

    def _logits(self, params):
        low, high = params
        logits = low.repeat(2, 0).repeat(2, 1)
        return logits + high if self.grown else logits

    def _nll(self, params, batch):
        log_p = jax.nn.log_softmax(self._logits(params))[None]
        x = batch["x"].astype(jnp.int32)[..., None]
        return -jnp.take_along_axis(log_p, x, -1).sum((1, 2, 3, 4))

    def train_step(self, key, state, batch, step, axis_name=None):
        params = state.low.params, state.high.params
        value, grads = jax.value_and_grad(lambda p: self._nll(p, batch).mean())(params)
        value, grads = mean_over(axis_name, (value, grads))
        low = descend(self.optimizer, state.low, grads[0], {}, step)
        # An idle block passes through untouched, its count of steps as well.
        high = descend(self.optimizer, state.high, grads[1], {}, step) if self.grown else state.high
        return GrowingState(low, high), {"nll": value, "grad_norm": optax.tree.norm(grads)}

    def eval_step(self, key, state, batch):
        return {"nll": self._nll((state.low.params, state.high.params), batch)}

    def sample(self, key, state, num, request=Request()):
        logits = self._logits((state.low.params, state.high.params)) / request.temperature
        keys = example_keys(key, request.start + jnp.arange(num))
        return jax.vmap(lambda k: jax.random.categorical(k, logits))(keys).astype(jnp.uint8)


@dataclass(frozen=True)
class Translator(Model[NetState], Translates):
    """A table from each level of the source to a level, and one back."""

    optimizer: Optimizer = Optimizer(learning_rate=0.3)
    """The optimizer of both tables."""

    metrics: ClassVar = {"error": ERROR}
    monitor: ClassVar = "error"
    ways: ClassVar = ("forth", "back")

    def init(self, key, batch):
        levels = self.spec.levels, self.spec.source.levels
        tables = {"forth": jnp.zeros((levels[1],)), "back": jnp.zeros((levels[0],))}
        return create_state(net_of(self.optimizer, tables))

    def _errors(self, tables, batch):
        x, source = batch["x"], batch["source"]
        forth = tables["forth"][source] - self.spec.to_float(x)
        back = tables["back"][x] - self.spec.source.to_float(source)
        return (forth**2).mean((1, 2, 3)), (back**2).mean((1, 2, 3))

    def train_step(self, key, state, batch, step, axis_name=None):
        def loss(variables, batch):
            forth, back = self._errors(variables["params"], batch)
            return (forth + back).mean(), ({"error": forth.mean()}, {})

        return train_net(self.optimizer, 0.9, state, loss, batch, step, axis_name)

    def eval_step(self, key, state, batch):
        return {"error": self._errors(state.ema["params"], batch)[0]}

    def translate(self, key, state, source, label=None, way="forth", start=0):
        spec = self.spec if way == "forth" else self.spec.source
        return spec.from_float(state.ema["params"][way][source])


@dataclass(frozen=True)
class Blob(Model[NetState], Samples):
    """A normal density over points, with a deviation for each coordinate."""

    optimizer: Optimizer = Optimizer(learning_rate=0.05)
    """The optimizer of mean and deviations."""

    metrics: ClassVar = {"nll": NLL._replace(unit="nats per point")}
    monitor: ClassVar = "nll"

    def init(self, key, batch):
        # The mean of the examples: initial values may depend on data.
        params = {"mean": batch["x"].mean(0), "logvar": jnp.zeros(self.spec.shape)}
        return create_state(net_of(self.optimizer, params))

    def _nll(self, params, x):
        log_p = normal_log_prob(x, params["mean"][None], params["logvar"][None])
        return -log_p.sum((1, 2, 3))

    def train_step(self, key, state, batch, step, axis_name=None):
        def loss(variables, batch):
            nll = self._nll(variables["params"], batch["x"]).mean()
            return nll, ({"nll": nll}, {})

        return train_net(self.optimizer, 0.9, state, loss, batch, step, axis_name)

    def eval_step(self, key, state, batch):
        return {"nll": self._nll(state.ema["params"], batch["x"])}

    def sample(self, key, state, num, request=Request()):
        noise = normal_like(key, request.start + jnp.arange(num), self.spec.shape)
        params = state.ema["params"]
        scale = request.temperature * jnp.exp(0.5 * params["logvar"])
        return params["mean"][None] + scale[None] * noise


@dataclass(frozen=True)
class Codes(Model[NetState], Encodes):
    """A linear encoder and decoder, without a prior: nothing can be drawn from it."""

    latents: int = 4
    """Numbers that each datum becomes."""
    optimizer: Optimizer = Optimizer(learning_rate=0.01)
    """The optimizer of both."""

    metrics: ClassVar = {"error": ERROR}
    monitor: ClassVar = "error"

    @property
    def groups(self):
        return (self.latents,)

    def init(self, key, batch):
        down = jax.random.normal(key, (self.spec.dims, self.latents)) / self.spec.dims**0.5
        return create_state(net_of(self.optimizer, {"down": down, "up": down.T}))

    def _code(self, params, batch):
        x = self.spec.to_float(batch["x"])
        return x.reshape(len(x), -1) @ params["down"]

    def _error(self, params, batch):
        decoded = self._code(params, batch) @ params["up"]
        x = self.spec.to_float(batch["x"])
        return ((decoded - x.reshape(len(x), -1)) ** 2).mean(-1)

    def train_step(self, key, state, batch, step, axis_name=None):
        def loss(variables, batch):
            error = self._error(variables["params"], batch).mean()
            return error, ({"error": error}, {})

        return train_net(self.optimizer, 0.9, state, loss, batch, step, axis_name)

    def eval_step(self, key, state, batch):
        return {"error": self._error(state.ema["params"], batch)}

    def encode(self, key, state, batch):
        return self._code(state.ema["params"], batch)

    def decode(self, key, state, z, label=None, start=0):
        return (z @ state.ema["params"]["up"]).reshape(-1, *self.spec.shape)


SMALL = DataSpec(4, 4, 1, 5)
PAIRS = dataclasses.replace(SMALL, source=SMALL)
PLANE = DataSpec(1, 1, 2, levels=0, ranges=((-3.0, 3.0), (-3.0, 3.0)))
TRAIN = TrainConfig(steps=8, batch_size=40, log_every=4, eval_every=4, samples=50, devices=1)


def toys(folder: Path) -> dict[str, Preset]:
    """The registry's lines of the toys; their data, small images and points of the plane, are
    written to that folder."""
    rng = np.random.default_rng(0)
    images = rng.integers(5, size=(240, 4, 4, 1)).astype(np.uint8)
    np.savez(folder / "images.npz", x=np.minimum(images, images[:, ::-1]))
    np.save(folder / "points.npy", rng.normal([1.0, -0.5], [0.5, 0.2], (240, 2)))
    images = DataConfig(dataset="arrays", data_dir=str(folder / "images.npz"), levels=5)
    pairs = dataclasses.replace(images, pairing="invert")
    plane = DataConfig(dataset="points", data_dir=str(folder / "points.npy"))
    flat = factorized()
    return {
        "factorized": Preset(flat(SMALL), images, TRAIN, flat(SMALL)),
        "growing": Preset(Growing(SMALL), images, TRAIN, Growing(SMALL, grow_at=2)),
        "translator": Preset(Translator(PAIRS), pairs, TRAIN, Translator(PAIRS)),
        "blob": Preset(Blob(PLANE), plane, TRAIN, Blob(PLANE)),
        "codes": Preset(Codes(SMALL), images, TRAIN, Codes(SMALL)),
    }
