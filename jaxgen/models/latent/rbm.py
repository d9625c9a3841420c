"""Restricted Boltzmann machine (Smolensky 1986; Hinton 2002, doi:10.1162/089976602760128018), by
persistent contrastive divergence (Tieleman 2008, doi:10.1145/1390156.1390290)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from jaxgen.abilities import Completes, Embeds, Encodes, Samples, Unnormalized
from jaxgen.errors import UserError
from jaxgen.fields import refuse_huge
from jaxgen.model import Batch, Inspection, Metric, Metrics, Model, Request, example_keys
from jaxgen.optim.net import Net, NetState, Variables, create_state
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import train_net

SHOWN = 64
"""Hidden units whose weights are looked at."""


@flax.struct.dataclass
class Chained:
    """The machine, and the chains that stand for its density."""

    machine: NetState
    chains: UInt8[Array, "m d"]


@dataclass(frozen=True)
class RBM(Model[Chained], Samples, Completes, Encodes, Embeds, Unnormalized):
    """A density known up to a constant: exp(b·x) times a factor for each hidden unit.

    Pixels are independent given the hidden units, and these given the pixels. Chains that go to and
    fro between the two, a little with every step, are what the density is pushed down at, where the
    data are what it is raised at.
    """

    hidden: int = 128
    """Binary hidden units."""
    chains: int = 100
    """Chains that are kept from step to step."""
    gibbs: int = 1
    """How often each chain goes to and fro in a step."""
    sweeps: int = 500
    """How often a sample does, from one of the chains on."""
    ais_steps: int = 1000
    """Densities between the one whose constant is known and the machine's, in the estimate of its
    constant (annealed importance sampling)."""
    ema: float = 0.995
    """Decay of the parameters' moving average, which evaluation and sampling use."""
    accumulate: int = 1
    """Parts that a device's batch is taken in, one after another, for memory; the step is the
    same to rounding."""
    optimizer: Optimizer = Optimizer(learning_rate=2e-3)
    """How weights and biases are trained."""

    monitor: ClassVar = "pseudo_nll"
    metrics: ClassVar = {
        "pseudo_nll": Metric("pseudo-likelihood, -sum log p(pixel | others)", "nats per image",
                             "lower"),
        "gap": Metric("free energy of data less that of the chains", "nats"),
    }  # fmt: skip

    def __post_init__(self) -> None:
        if self.spec.levels != 2:
            had = f"{self.spec.levels} levels" if self.spec.levels else "real numbers"
            raise UserError(
                f"the machine's pixels are 0 or 1, and the data are {had}: make them so with "
                "--binarize=threshold, static or dynamic, or with --levels=2"
            )
        if self.spec.num_classes:
            raise UserError(
                "the machine has one constant, not one for each label: leave --conditional out"
            )
        least = min(self.hidden, self.chains, self.gibbs, self.sweeps, self.accumulate)
        if min(least, self.ais_steps) < 1:
            raise UserError(
                "`hidden`, `chains`, `gibbs`, `sweeps`, `ais_steps` and `accumulate` must be at "
                "least 1"
            )
        if not 0 <= self.ema < 1:
            raise UserError(f"`ema` must lie in [0, 1); got {self.ema}")
        refuse_huge(self)

    @property
    def multiple(self) -> int:
        return self.accumulate

    @property
    def groups(self) -> tuple[int, ...]:
        return (self.hidden,)

    def init(self, key: Key[Array, ""], batch: Batch) -> Chained:
        """Weights are small, and the visible biases those at which pixels are as often 1 as in the
        batch (Hinton 2012, doi:10.1007/978-3-642-35289-8_32, section 8)."""
        dims, key_w, key_x = self.spec.dims, *jax.random.split(key)
        mean = (_flat(batch).sum(0) + 1.0) / (len(batch["x"]) + 2.0)
        params = {
            "weights": 0.01 * jax.random.normal(key_w, (dims, self.hidden)),
            "visible": jnp.log(mean / (1.0 - mean)),
            "hidden": jnp.zeros(self.hidden),
        }
        net = Net({"params": params}, self.optimizer.make().init(params))
        chains = jax.random.bernoulli(key_x, mean[None], (self.chains, dims))
        return Chained(create_state(net), chains.astype(jnp.uint8))

    def free_energy(
        self, variables: Variables, x: Float[Array, "b d"], scale: float | Array = 1.0
    ) -> Float[Array, " b"]:
        """-log of the density at x of 0 and 1, but for its constant; `scale` multiplies what the
        hidden units are told, so that at 0 pixels are independent."""
        p = variables["params"]
        told = scale * (p["hidden"][None] + x @ p["weights"])
        return -x @ p["visible"] - jax.nn.softplus(told).sum(-1)

    def to_and_fro(
        self,
        key: Key[Array, ""],
        variables: Variables,
        x: Float[Array, " d"],
        scale: float | Array = 1.0,
        temperature: float | Array = 1.0,
    ) -> Float[Array, " d"]:
        """One chain's hidden units given its pixels, and new pixels given these."""
        p, (key_h, key_x) = variables["params"], jax.random.split(key)
        told = scale * (p["hidden"] + x @ p["weights"])
        h = _draw(key_h, told / temperature)
        return _draw(key_x, (p["visible"] + scale * (p["weights"] @ h)) / temperature)

    def _chained(
        self,
        keys: Key[Array, " b"],
        variables: Variables,
        x: Float[Array, "b d"],
        times: int,
        known: Bool[Array, "b d"] | None = None,
        temperature: float | Array = 1.0,
    ) -> Float[Array, "b d"]:
        """Chains after going to and fro so often, their known pixels held."""

        def once(i: Array, now: Float[Array, "b d"]) -> Float[Array, "b d"]:
            step = lambda key, x: self.to_and_fro(  # noqa: E731
                jax.random.fold_in(key, i), variables, x, temperature=temperature
            )
            new = jax.vmap(step)(keys, now)
            return new if known is None else jnp.where(known, x, new)

        return jax.lax.fori_loop(0, times, once, x)

    def train_step(
        self,
        key: Key[Array, ""],
        state: Chained,
        batch: Batch,
        step: int | Int[Array, ""],
        axis_name: str | None = None,
    ) -> tuple[Chained, Metrics]:
        """One step up the likelihood, whose gradient's second half the chains estimate. Every
        device has all chains."""
        keys = example_keys(key, jnp.arange(self.chains))
        now = state.chains.astype(jnp.float32)
        now = self._chained(keys, state.machine.net.variables, now, self.gibbs)

        def loss(variables: Variables, batch: Batch) -> tuple[Array, tuple[Metrics, Variables]]:
            data, chains = self.free_energy(variables, _flat(batch)), now
            gap = data.mean() - self.free_energy(variables, chains).mean()
            return gap, ({"gap": gap}, {})

        settings = self.optimizer, self.ema, state.machine
        machine, metrics = train_net(*settings, loss, batch, step, axis_name, self.accumulate)
        return Chained(machine, now.astype(jnp.uint8)), metrics

    def eval_step(
        self, key: Key[Array, ""], state: Chained, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        """Each pixel's probability given all others, exactly: no constant is needed."""
        p = state.machine.ema["params"]

        def one(x: Float[Array, " d"]) -> Float[Array, ""]:
            sign = 1.0 - 2.0 * x
            told = p["hidden"] + x @ p["weights"]
            flipped = jax.nn.softplus(told[None] + sign[:, None] * p["weights"]).sum(-1)
            log_ratio = sign * p["visible"] + flipped - jax.nn.softplus(told).sum()
            return jax.nn.softplus(log_ratio).sum()

        return {"pseudo_nll": jax.lax.map(one, _flat(batch))}

    def log_unnormalized(self, state: Chained, batch: Batch) -> Float[Array, " b"]:
        return -self.free_energy(state.machine.ema, _flat(batch))

    def log_partition(
        self, key: Key[Array, ""], state: Chained, num: int, start: int | Int[Array, ""] = 0
    ) -> Float[Array, " num"]:
        """Annealed importance sampling (Neal 2001; Salakhutdinov & Murray 2008,
        doi:10.1145/1390156.1390266), from independent pixels of the same visible biases."""
        variables = state.machine.ema
        visible = variables["params"]["visible"]
        known = self.hidden * jnp.log(2.0) + jax.nn.softplus(visible).sum()
        keys = example_keys(key, start + jnp.arange(num))
        first = jax.vmap(lambda key: _draw(jax.random.fold_in(key, 0), visible))(keys)

        def anneal(i: Array, carry: Any) -> Any:
            x, log_weight = carry
            old, new = i / self.ais_steps, (i + 1) / self.ais_steps
            log_weight += self.free_energy(variables, x, old)
            log_weight -= self.free_energy(variables, x, new)
            move = lambda key, x: self.to_and_fro(  # noqa: E731
                jax.random.fold_in(key, i + 1), variables, x, new
            )
            return jax.vmap(move)(keys, x), log_weight

        carry = first, jnp.zeros(num)
        return known + jax.lax.fori_loop(0, self.ais_steps, anneal, carry)[1]

    def sample(
        self, key: Key[Array, ""], state: Chained, num: int, request: Request = Request()
    ) -> UInt8[Array, "num h w c"]:
        """The ends of chains, each from one of those of training on; temperature divides the
        energy."""
        if request.label is not None:
            raise UserError("this model is unconditional: it takes no label")
        index = request.start + jnp.arange(num)
        x = state.chains[index % self.chains].astype(jnp.float32)
        return self._ends(example_keys(key, index), state, x, None, request.temperature)

    def complete(
        self,
        key: Key[Array, ""],
        state: Chained,
        x: UInt8[Array, "b h w c"],
        known: Array,
        request: Request = Request(),
    ) -> UInt8[Array, "b h w c"]:
        """Chains whose known pixels are held; the others begin at one half each."""
        keys = example_keys(key, request.start + jnp.arange(len(x)))
        held, given = known.reshape(len(x), -1), x.reshape(len(x), -1).astype(jnp.float32)
        unknown = jax.vmap(lambda key: _draw(jax.random.fold_in(key, self.sweeps), jnp.zeros(1)))
        begun = jnp.where(held, given, unknown(keys))
        return self._ends(keys, state, begun, held, request.temperature)

    def _ends(
        self,
        keys: Key[Array, " b"],
        state: Chained,
        x: Float[Array, "b d"],
        known: Bool[Array, "b d"] | None,
        temperature: float | Array,
    ) -> UInt8[Array, "b h w c"]:
        chained = self._chained(keys, state.machine.ema, x, self.sweeps, known, temperature)
        return chained.astype(jnp.uint8).reshape(len(x), *self.spec.shape)

    def encode(self, key: Key[Array, ""], state: Chained, batch: Batch) -> Float[Array, "b z"]:
        """The probability of each hidden unit, given x."""
        return self.embed(state, batch)

    def embed(self, state: Chained, batch: Batch) -> Float[Array, "b z"]:
        """The probability of each hidden unit, given x."""
        p = state.machine.ema["params"]
        return jax.nn.sigmoid(p["hidden"][None] + _flat(batch) @ p["weights"])

    def decode(
        self,
        key: Key[Array, ""],
        state: Chained,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "b h w c"]:
        """The mean of x, given the hidden units: numbers in [0, 1]."""
        p = state.machine.ema["params"]
        mean = jax.nn.sigmoid(p["visible"][None] + z @ p["weights"].T)
        return (2.0 * mean - 1.0).reshape(len(z), *self.spec.shape)

    def inspect(self, key: Key[Array, ""], state: Chained, batch: Batch) -> Inspection:
        """The weights of the first hidden units, each as an image."""
        weights = state.machine.ema["params"]["weights"].T[:SHOWN]
        h, w, c = self.spec.shape
        maps = weights.reshape(len(weights), h, w, c).mean(-1)
        columns = max(n for n in range(1, 9) if len(maps) % n == 0)
        pictures = maps.reshape(-1, columns, h, w)
        return Inspection({}, {}, {"weights of hidden units": pictures})

    def facts(self) -> dict[str, str]:
        return {"latents": f"{self.hidden} binary hidden units; the density up to a constant"}


def _flat(batch: Batch) -> Float[Array, "b d"]:
    """x as rows of 0 and 1."""
    return batch["x"].reshape(len(batch["x"]), -1).astype(jnp.float32)


def _draw(key: Key[Array, ""], logits: Float[Array, "*s"]) -> Float[Array, "*s"]:
    return jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(jnp.float32)
