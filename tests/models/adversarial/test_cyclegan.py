"""CycleGAN: its pool against a plain one, its step against a naive one, and its symmetries."""

import dataclasses
import functools
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import batch_of, close

from jaxgen.cli import main
from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.models.adversarial.cyclegan import CycleGAN, CycleState, Made
from jaxgen.models.adversarial.pool import Pool, empty, exchanged
from jaxgen.models.adversarial.translation import Translation
from jaxgen.optim.optimizer import Optimizer
from jaxgen.parallel.inference import per_example
from jaxgen.parallel.mesh import AXIS, SPLIT, WHOLE, data_parallel, make_mesh, on_every_device
from jaxgen.registry import MODELS, load_run
from jaxgen.runs.checkpoint import Checkpoints
from jaxgen.runs.digest import digest
from jaxgen.runs.state import shapes, start
from jaxgen.spec import DataSpec
from jaxgen.training.feed import Feed, first_examples
from jaxgen.training.steps import compile_steps

GREY = DataSpec(4, 4, 1, 5, source=DataSpec(4, 4, 1, 5))
COLOURED = DataSpec(4, 4, 1, 5, source=DataSpec(4, 4, 3, 5))
SGD, STILL = Optimizer("sgd", 0.05, b1=0.0), Optimizer("sgd", 0.0, b1=0.0)


def small(spec=GREY, **fields):
    given = {"filters": 2, "halvings": 1, "d_filters": 2, "d_halvings": 1, "pool": 6}
    given |= {"g_optimizer": SGD, "d_optimizer": SGD, "ema": 0.5}
    return CycleGAN(spec, **given | fields)


# The pool


def images(num, start=0):
    numbers = start + np.arange(num, dtype=np.float32)[:, None, None, None] + 1.0
    return np.broadcast_to(numbers, (num, 2, 2, 1))


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0))
def draws(key, i):
    """The coin and the place of image i."""
    return jax.random.uniform(jax.random.fold_in(key, i), (2,))


exchange = jax.jit(exchanged, static_argnums=4)


def plain(key, pool, made, index):
    """The pool of the paper's code, an image at a time."""
    kept, held, shown = list(np.asarray(pool.images)), int(pool.held), []
    for image, (coin, place) in zip(made, np.asarray(draws(key, index)), strict=True):
        if held < len(kept):
            kept[held], held = image, held + 1
            shown.append(image)
        elif coin < 0.5:
            shown.append(kept[int(place * len(kept))])
            kept[int(place * len(kept))] = image
        else:
            shown.append(image)
    return np.stack(kept), held, np.stack(shown)


def test_a_pool_is_that_of_one_image_at_a_time():
    pool = empty(5, (2, 2, 1))
    for step in range(4):
        key, made, index = jax.random.key(step), images(8, 8 * step), np.arange(8)
        kept, held, shown = plain(jax.random.clone(key), pool, made, index)
        pool, found = jax.device_get(exchange(key, pool, made, index, None))
        np.testing.assert_array_equal(pool.images, kept)
        np.testing.assert_array_equal(found, shown)
        assert int(pool.held) == held == 5
        assert (step == 0) == bool((found[:5] == made[:5]).all())  # the free places were taken


def test_half_of_what_a_full_pool_shows_is_old():
    num, size = 4000, 50
    pool = Pool(-images(size), jnp.int32(size))
    made = images(num)
    new, shown = jax.device_get(exchange(jax.random.key(3), pool, made, np.arange(num), None))
    own = (shown == made).all((1, 2, 3))
    assert abs(own.mean() - 0.5) < 3 * 0.5 / num**0.5
    # Nothing is lost: what was put in was shown since, or is there still.
    everything = np.sort(np.concatenate([shown[:, 0, 0, 0], new.images[:, 0, 0, 0]]))
    given = np.sort(np.concatenate([made[:, 0, 0, 0], pool.images[:, 0, 0, 0]]))
    np.testing.assert_array_equal(everything, given)
    # Every place is as likely: an image stays for 2 * size on average.
    old = new.images[:, 0, 0, 0]
    assert 60 < num - old.mean() < 160


@pytest.mark.parametrize("devices", [2, 4])
def test_a_pool_is_the_same_on_any_number_of_devices(devices):
    def step(key, pool, made, index):
        return exchanged(key, pool, made, index, AXIS)

    given = jax.random.key(1), Pool(-images(5), jnp.int32(3)), images(8), np.arange(8)
    expected = exchange(jax.random.clone(given[0]), *given[1:], None)
    specs = (WHOLE, WHOLE, SPLIT, SPLIT)
    found = data_parallel(step, make_mesh(devices), specs, (WHOLE, SPLIT))(*given)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    for leaf in jax.tree.leaves(found[0]):
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, leaf)


# The step


@functools.partial(jax.jit, static_argnums=0)
def naive(model, state, batch):
    """The paper's two updates by SGD, for networks without dropout; and what they made, the pools,
    and what these show to the discriminators."""
    x, source = model.pair(batch)
    made = Made(
        model.network("forth").apply(state.forth.variables, source),
        model.network("back").apply(state.back.variables, x),
    )
    pools, shown = (), made
    if model.pool:
        _, *keys = jax.random.split(jax.random.key(1), 3)
        pairs = zip(keys, state.pools, made, strict=True)
        both = [exchanged(k, pool, new, batch["index"], None) for k, pool, new in pairs]
        pools, shown = tuple(pool for pool, _ in both), Made(*(seen for _, seen in both))
    forth = lambda p, s: model.network("forth").apply({"params": p}, s)  # noqa: E731
    back = lambda p, x: model.network("back").apply({"params": p}, x)  # noqa: E731
    judge = lambda d, x: model.discriminator(False).apply({"params": d}, x)  # noqa: E731
    distance = lambda a, b: jnp.abs(a - b).mean()  # noqa: E731

    def g_loss(f, b):
        y, s = forth(f, source), back(b, x)
        adversarial = ((judge(state.d_x.params, y) - 1) ** 2).mean()
        adversarial += ((judge(state.d_source.params, s) - 1) ** 2).mean()
        cycle = distance(forth(f, s), x) + distance(back(b, y), source)
        value = adversarial + model.cycle * cycle
        if model.identity:
            value += model.identity * (distance(forth(f, x), x) + distance(back(b, source), source))
        return value

    def d_loss(d, real, fake):
        return (((judge(d, real) - 1) ** 2).mean() + (judge(d, fake) ** 2).mean()) / 2

    moved = lambda p, g: jax.tree.map(lambda p, g: p - 0.05 * g, p, g)  # noqa: E731
    f, b = jax.grad(g_loss, (0, 1))(state.forth.params, state.back.params)
    d_x = jax.grad(d_loss)(state.d_x.params, x, shown.x)
    d_source = jax.grad(d_loss)(state.d_source.params, source, shown.source)
    return {
        "forth": moved(state.forth.params, f), "back": moved(state.back.params, b),
        "d_x": moved(state.d_x.params, d_x), "d_source": moved(state.d_source.params, d_source),
    }, made, pools, shown  # fmt: skip


class _Layer(nn.Module):
    """One convolution, which compiles soon."""

    channels: int

    @nn.compact
    def __call__(self, x, label=None, keys=None):
        return jnp.tanh(nn.Conv(self.channels, (3, 3))(x))


THIN = {"cycle": 9.0}
"""Names the models whose generators are of one layer in tests: states are remembered by model."""


def of_one_layer(monkeypatch):
    layer = lambda self, way="forth": _Layer(self.ends(way)[1].channels)  # noqa: E731
    monkeypatch.setattr(Translation, "network", layer)


@pytest.mark.parametrize(("spec", "fields"), [
    pytest.param(COLOURED, {"pool": 0}, marks=pytest.mark.slow),
    pytest.param(GREY, {"identity": 5.0, "architecture": "resnet", "halvings": 0, "blocks": 1},
                 marks=pytest.mark.slow),
    (GREY, {"identity": 5.0, **THIN}),
])  # fmt: skip
def test_a_step_is_the_naive_one(spec, fields, random_state, monkeypatch):
    if THIN.items() <= fields.items():
        of_one_layer(monkeypatch)
    model = small(spec, **fields)
    state, batch = random_state(model), batch_of(8, spec)
    state = dataclasses.replace(
        state, pools=tuple(p.replace(held=jnp.int32(6)) for p in state.pools)
    )
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, 50)
    expected, made, pools, shown = naive(model, state, batch)
    close(new.pools, pools)
    assert np.allclose(shown.x, made.x) == (not model.pool)
    for name, params in expected.items():
        close(getattr(new, name).params, params)
    # The average is warmed up no more at step 50: half of the old, half of the new.
    old, new = jax.device_get((state, new))
    for way in ("forth", "back"):
        half = lambda a, b: 0.5 * a + 0.5 * b  # noqa: E731
        close(new.ema[way], jax.tree.map(half, old.ema[way], getattr(new, way).variables))
    assert ("identity" in metrics) == bool(model.identity)


@pytest.mark.slow
def test_each_side_leaves_the_other_alone(random_state):
    """To the bit: what does not learn is what it was."""
    state = random_state(small())
    for still, moving, fields in (
        (("d_x", "d_source"), ("forth", "back"), {"d_optimizer": STILL}),
        (("forth", "back"), ("d_x", "d_source"), {"g_optimizer": STILL}),
    ):
        model = small(**fields)
        new, _ = jax.jit(model.train_step)(jax.random.key(1), state, batch_of(8, GREY), 3)
        for name in still:
            old = getattr(state, name).variables
            jax.tree.map(np.testing.assert_array_equal, getattr(new, name).variables, old)
        for name in moving:
            leaves = zip(
                *(jax.tree.leaves(getattr(s, name).params) for s in (new, state)), strict=True
            )
            assert any((a != b).any() for a, b in leaves)


class _Same(nn.Module):
    """Gives back what it is given."""

    @nn.compact
    def __call__(self, x, label=None, keys=None):
        self.param("idle", nn.initializers.zeros, ())
        return x


@pytest.mark.slow
def test_identity_networks_make_no_error(monkeypatch):
    monkeypatch.setattr(Translation, "network", lambda self, way="forth": _Same())
    model, batch = small(identity=5.0), batch_of(8, GREY)
    state = model.init(jax.random.key(0), batch)
    _, metrics = model.train_step(jax.random.key(1), state, batch, 0)
    assert float(metrics["cycle"]) == float(metrics["identity"]) == 0.0
    found = model.eval_step(jax.random.key(2), state, batch)
    x, source = model.pair(batch)
    assert not found["cycle"].any()
    for name in ("l1", "l1_forth", "l1_back"):
        np.testing.assert_allclose(found[name], jnp.abs(x - source).mean((1, 2, 3)), rtol=1e-6)


@pytest.mark.slow
def test_exchanging_the_domains_exchanges_everything(random_state):
    model = small(COLOURED, pool=0)
    other = small(dataclasses.replace(COLOURED.source, source=DataSpec(4, 4, 1, 5)), pool=0)

    def swapped(s):
        ema = {"forth": s.ema["back"], "back": s.ema["forth"]}
        return CycleState(s.back, s.forth, s.d_source, s.d_x, (), ema)

    state, batch = random_state(model), batch_of(8, COLOURED)
    turned = {**batch, "x": batch["source"], "source": batch["x"]}
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, 3)
    new2, metrics2 = jax.jit(other.train_step)(jax.random.key(1), swapped(state), turned, 3)
    close((swapped(new2), metrics2), (new, metrics))
    found = model.eval_step(jax.random.key(2), state, batch)
    found2 = other.eval_step(jax.random.key(2), swapped(state), turned)
    close(found2["l1_forth"], found["l1_back"])
    forth = model.translate(jax.random.key(3), state, batch["source"])
    back = other.translate(jax.random.key(3), swapped(state), batch["source"], way="back")
    np.testing.assert_array_equal(forth, back)
    assert forth.dtype == jnp.uint8 and forth.shape == (8, 4, 4, 1)


def test_it_watches_both_domains(random_state, monkeypatch):
    """Judgements are means over both, and variety is that of the way that has less."""
    of_one_layer(monkeypatch)
    model, batch = small(pool=0, **THIN), batch_of(8, GREY)
    state = random_state(model)
    step = jax.jit(model.train_step)
    _, metrics = step(jax.random.key(1), state, batch, 3)
    x, source = jax.device_get(model.pair(batch))

    @jax.jit
    def made_and_judged(state):
        """What both ways make, and the logits of each side's images, real and made."""
        judge = functools.partial(model.discriminator(True).apply, mutable="spectral")
        forth = model.network("forth").apply(state.forth.variables, source)
        back = model.network("back").apply(state.back.variables, x)
        return (forth, back), {
            name: [judge(d.variables, a)[0]
                   for d, a in zip((state.d_x, state.d_source), sides, strict=True)]
            for name, sides in (("d_real", (x, source)), ("d_fake", (forth, back)))
        }  # fmt: skip

    (forth, back), judged = jax.device_get(made_and_judged(state))
    for name, logits in judged.items():
        expected = np.mean([each.mean() for each in logits])
        np.testing.assert_allclose(metrics[name], expected, rtol=1e-4)
    ratios = [
        (np.var(made, 0).mean() / np.var(real, 0).mean()) ** 0.5
        for made, real in ((forth, x), (back, source))
    ]
    np.testing.assert_allclose(metrics["variety"], min(ratios), rtol=1e-4)
    still = jax.tree.map(np.zeros_like, jax.device_get(state.back.variables))
    state = state.replace(back=state.back.replace(variables=still))
    _, metrics = step(jax.random.key(1), state, batch, 3)
    assert metrics["variety"] == 0 and "collapsed" in model.verdict(metrics)
    seen = jax.jit(model.eval_step)(jax.random.key(2), state, batch)
    judge = jax.jit(model.discriminator(False).apply)
    logits = [
        np.asarray(judge(d.variables, a)).reshape(8, -1).mean(1)
        for d, a in ((state.d_x, x), (state.d_source, source))
    ]
    np.testing.assert_allclose(seen["d_logit"], sum(logits) / 2, rtol=1e-4)
    fine = {"variety": 1.0, "d_real": 0.7, "d_fake": 0.3, "d_logit": 0.1, "d_logit_fake": 0.1}
    assert model.verdict(fine) is None
    assert "remembers the training images" in model.verdict({**fine, "d_gap": -0.8})


def test_each_pass_has_noise_of_its_own_and_each_judge_its_collections(random_state):
    """Where both ways have the same arrays and data, dropout alone tells them apart."""
    model = small(pool=0, dropout=0.5, d_norm="spectral")
    state, batch = random_state(model), batch_of(8, GREY)
    ema = {"forth": state.ema["forth"], "back": state.ema["forth"]}
    state = dataclasses.replace(state, back=state.forth, d_source=state.d_x, ema=ema)
    batch = {**batch, "source": batch["x"]}
    new, _ = jax.jit(model.train_step)(jax.random.key(1), state, batch, 50)
    moved = [jax.tree.leaves(net.params) for net in (new.forth, new.back)]
    assert any(np.any(np.asarray(a) != b) for a, b in zip(*moved, strict=True))
    found = jax.device_get(jax.jit(model.eval_step)(jax.random.key(2), state, batch))
    assert (found["l1_forth"] != found["l1_back"]).any()
    for judge in (new.d_x, new.d_source):
        before, after = ({**n.variables, "params": {}} for n in (state.d_x, judge))
        leaves = zip(*map(jax.tree.leaves, (before, after)), strict=True)
        assert any(np.any(np.asarray(a) != b) for a, b in leaves)
    still = dataclasses.replace(model, dropout=0.0)
    made = jax.jit(still.translate)(jax.random.key(3), state, batch["source"])
    see = jax.jit(lambda v, x: GREY.from_float(still.network().apply(v, GREY.to_float(x))))
    np.testing.assert_array_equal(made, see(state.ema["forth"], batch["source"]))


# Data


def test_no_image_is_seen_with_its_source():
    """Over all batches of an epoch, by the stored image of each."""
    data = load(DataConfig(pairing="invert", unpaired=True))
    feed, seen = Feed(data, 0, 50, make_mesh(1), 10), ([], [])
    chunk = feed.chunk(0, 10)
    for i in range(10):
        batch = feed.batch(chunk, i)
        seen[0].extend(x.tobytes() for x in np.asarray(batch["x"]))
        seen[1].extend(x.tobytes() for x in 16 - np.asarray(batch["source"]))
    assert len(set(seen[0])) == len(set(seen[1])) == 500
    assert not set(seen[0]) & set(seen[1])


def test_what_cannot_be_is_told():
    for spec, fields, told in (
        (
            dataclasses.replace(GREY, source=DataSpec(2, 2, 1, 5)),
            {},
            "are of 2x2 and 4x4: give --size",
        ),
        (DataSpec(4, 4, 1, 5), {}, "these data have no source: give a --pairing"),
        (dataclasses.replace(GREY, num_classes=3), {}, "leave --conditional out"),
        (GREY, {"cycle": -1.0}, "must not be negative"),
        (GREY, {"d_halvings": 3}, "`d_halvings`=3 halves images of 4x4 to less than a pixel"),
        (GREY, {"halvings": 3}, "set it to 2 or less"),
        (GREY, {"pool": -1}, "not negative"),
        (GREY, {"ema": 1.0}, "`ema` must lie"),
        (GREY, {"dropout": 1.0}, "`dropout` must lie"),
        (GREY, {"filters": 0}, "must be at least 1"),
    ):
        with pytest.raises(UserError, match=told.replace("(", r"\(")):
            small(spec, **fields)
    assert small(chosen_by="cycle").monitor == "cycle" and small().monitor == "l1"
    assert set(jax.eval_shape(small(chosen_by="cycle").eval_step, jax.random.key(0),
                              jax.eval_shape(small().init, jax.random.key(0), GREY.example(2)),
                              GREY.example(2))) == {"cycle", "d_logit", "d_logit_fake"}  # fmt: skip


@pytest.fixture
def same_noise():
    """Every chunk of an evaluation is of one key, on purpose."""
    jax.config.update("jax_debug_key_reuse", False)
    yield
    jax.config.update("jax_debug_key_reuse", True)


@pytest.mark.slow
def test_a_run_goes_on_with_its_pool(same_noise, tmp_path):
    """Stopped between two checkpoints, it ends in the same bits, images of the pool among them."""
    whole, again = tmp_path / "whole", tmp_path / "again"
    sizes = ["filters=2", "halvings=1", "d_filters=2", "d_halvings=1", "pool=70"]
    flags = ["--model=cyclegan", "--steps=8", "--eval_every=4", "--log_every=4", "--batch_size=20"]
    flags += [f"--cyclegan.{size}" for size in sizes]
    main.main(["train", *flags, f"--run={whole}"])
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / "8")
    main.main(["train", *flags, f"--run={again}"])

    def last(run):
        with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
            return checkpoints.restore(shapes(load_run(run).model), 8)[0]

    assert digest(last(again)) == digest(last(whole))
    assert int(last(whole).state.pools[0].held) == 70


@pytest.mark.slow
def test_inverted_digits_are_found_without_pairs(same_noise, compiled_in_full):
    """The preset's networks, in a third of its steps: at most a quarter of the error of doing
    nothing, both ways."""
    data, mesh = load(DataConfig(pairing="invert", unpaired=True)), make_mesh(1)
    model, steps = MODELS["cyclegan"].model, 500
    feed = Feed(data, 0, 50, mesh, steps)
    state = model.init(jax.random.key(0), first_examples(data, 0, 50))
    progress = on_every_device(mesh, start, state)
    run = compile_steps(model, feed, mesh)
    progress, _ = run(progress, jax.random.key(1), feed.chunk(0, steps), jnp.int32(steps))
    test = data.materialize("test")
    x, source = (2.0 / 16 * a.astype(np.float64) - 1 for a in (test.x, test.columns["source"]))
    nothing = np.abs(x - source).mean()
    found = per_example(model, mesh, jax.random.key(2), progress.state, test, 50)
    assert found["l1_forth"].mean() < nothing / 4 and found["l1_back"].mean() < nothing / 4
