"""The same networks and the same train steps, written in PyTorch: the other side of train_step.py.

Each mirrors one of our models layer by layer: widths, activations, normalization, loss, Adam and
its constants, the moving average of the parameters, the batch gathered from uint8 images that lie
on the device. Our steps also look whether everything is finite; these do not.

Each peer comes in variants (memory layout, compiled or not), and `train_step.py` takes the best.
"""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import peers_latent
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jaxgen
from jaxgen.optim.optimizer import Optimizer

Run = Callable[[int], Any]
NCHW, NHWC = torch.contiguous_format, torch.channels_last

torch.set_num_threads(os.cpu_count() or 1)


class MaskedConv(nn.Conv2d):
    """`jaxgen.causal.CausalConv` of one group as it is usually written: the whole k x k kernel
    times a mask. `cropped` keeps the rows that can be live, as ours does."""

    def __init__(self, i: int, o: int, kernel: int, kind: str, cropped: bool) -> None:
        reach = kernel // 2
        super().__init__(i, o, (reach + 1 if cropped else kernel, kernel), padding=reach)
        self.cropped = cropped
        mask = torch.ones_like(self.weight)
        mask[:, :, reach, reach + (kind == "B") :] = 0
        mask[:, :, reach + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)
        # Padded by k//2 rows below as well: those outputs are not the image's.
        return y[:, :, : x.shape[2]] if self.cropped else y


def pixelcnn(model: jaxgen.PixelCNN, cropped: bool) -> nn.Module:
    """PixelCNNNet with plain blocks, one channel, no labels, no dropout: x [b 1 h w] -> logits."""
    assert model.block == "plain" and model.spec.channels == 1 and model.dropout == 0
    layers: list[nn.Module] = [MaskedConv(1, model.features, model.first_kernel, "A", cropped)]
    for _ in range(model.blocks):
        layers += [
            nn.ReLU(),
            MaskedConv(model.features, model.features, model.kernel, "B", cropped),
        ]
    layers += [nn.ReLU(), nn.Conv2d(model.features, model.head, 1)]
    layers += [nn.ReLU(), nn.Conv2d(model.head, model.likelihood.num_params, 1)]
    return nn.Sequential(*layers)


def pixelcnn_loss(net: nn.Module, x: Tensor) -> Tensor:
    """NLL in nats per image of x in {-1, 1}."""
    target = (x + 1) / 2
    return F.binary_cross_entropy_with_logits(net(x), target, reduction="sum") / len(x)


class VAENet(nn.Module):
    """VAENet of fully connected layers, Bernoulli, no dropout."""

    def __init__(self, model: jaxgen.VAE) -> None:
        super().__init__()
        assert model.architecture == "mlp" and model.dropout == 0 and len(model.hidden) == 1
        (hidden,) = model.hidden
        self.encoder = nn.Sequential(
            nn.Linear(model.spec.dims, hidden), nn.ReLU(), nn.Linear(hidden, 2 * model.latents)
        )
        self.decoder = nn.Sequential(
            nn.Linear(model.latents, hidden), nn.ReLU(), nn.Linear(hidden, model.spec.dims)
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = self.encoder((1 + x.flatten(1)) / 2).chunk(2, dim=-1)
        return mean, logvar.clamp(-15, 15)


def vae_loss(net: VAENet, x: Tensor) -> Tensor:
    """Minus the ELBO in nats per image of x in {-1, 1}."""
    mean, logvar = net.encode(x)
    z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
    target = (1 + x.flatten(1)) / 2
    nll = F.binary_cross_entropy_with_logits(net.decoder(z), target, reduction="sum")
    return (nll + 0.5 * (logvar.exp() + mean**2 - 1 - logvar).sum()) / len(x)


def generator(model: jaxgen.GAN) -> nn.Module:
    """Generator of a 32x32 DCGAN: latents [b z] -> images [b c 32 32] in [-1, 1]."""
    assert model.convolutional and model.spec.shape[:2] == (32, 32)
    f, channels = model.filters, model.spec.channels
    layers: list[nn.Module] = [nn.Linear(model.latents, 4 * 4 * 4 * f, bias=False)]
    layers += [nn.Unflatten(1, (4 * f, 4, 4)), nn.BatchNorm2d(4 * f), nn.ReLU()]
    for i, o in ((4 * f, 2 * f), (2 * f, f)):
        layers += [nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(f, channels, 4, 2, 1), nn.Tanh())


def discriminator(model: jaxgen.GAN) -> nn.Module:
    """Discriminator of a 32x32 DCGAN: images -> logits [b 1]."""
    f = model.filters
    layers: list[nn.Module] = [nn.Conv2d(model.spec.channels, f, 4, 2, 1), nn.LeakyReLU(0.2)]
    for i, o in ((f, 2 * f), (2 * f, 4 * f)):
        layers += [nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 4 * 4 * f, 1))


def live_parameters(*modules: nn.Module) -> int:
    """Parameters that a mask does not hold at zero."""
    total = 0
    for module in modules:
        total += sum(p.numel() for p in module.parameters())
        masks = [m.mask for m in module.modules() if isinstance(m, MaskedConv)]
        total -= sum(int((mask == 0).sum()) for mask in masks)
    return total


def adam(params: list[Tensor], options: Optimizer) -> torch.optim.Adam:
    """Adam as fused or as foreach, whichever takes these parameters' step in less time."""
    betas = (options.b1, options.b2)

    def seconds(kind: str) -> float:
        copies = [p.detach().clone().requires_grad_() for p in params]
        for p in copies:
            p.grad = torch.ones_like(p)
        optimizer = torch.optim.Adam(copies, 0.0, betas, **{kind: True})
        times = []
        for _ in range(10):
            start = time.perf_counter()
            optimizer.step()
            _wait(params[0].device)
            times.append(time.perf_counter() - start)
        return min(times)

    best = min(("fused", "foreach"), key=seconds)
    return torch.optim.Adam(params, options.learning_rate, betas, **{best: True})


class Average:
    """The warmed-up moving average of `jaxgen.optim.net.average`, over lists of tensors."""

    def __init__(self, tensors: list[Tensor], decay: float) -> None:
        self.tensors, self.decay, self.step = tensors, decay, 0
        self.ema = [t.detach().clone() for t in tensors]

    @torch.no_grad()
    def update(self) -> None:
        rate = 1 - min(self.decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.ema, self.tensors, rate)
        self.step += 1


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _batches(images: Tensor, size: int) -> Iterator[Tensor]:
    """Batches gathered in an order that is drawn anew every epoch."""
    while True:
        order = torch.randperm(len(images), device=images.device)
        for start in range(0, len(images) - size + 1, size):
            yield images[order[start : start + size]]


def _steps(step: Callable[[Tensor], None], images: Tensor, size: int) -> Run:
    batches = _batches(images, size)

    def run(count: int) -> None:
        for _ in range(count):
            step(next(batches))
        _wait(images.device)

    return run


class How(NamedTuple):
    """A variant of a peer."""

    form: Any = NCHW
    mode: str = ""
    """Of torch.compile: default, reduce-overhead (CUDA graphs), ...; "" = eager."""
    precision: str = ""
    """float32 or bfloat16 (autocast); "" = bfloat16 on an accelerator, and on a CPU float32, as
    ours."""

    def autocast(self, device: torch.device) -> Any:
        accelerated = device.type != "cpu"
        enabled = self.precision == "bfloat16" if self.precision else accelerated
        return torch.autocast(device.type, torch.bfloat16, enabled=enabled)

    def compile(self, function: Any) -> Any:
        return torch.compile(function, dynamic=False, mode=self.mode) if self.mode else function

    def begin(self) -> None:
        """Before a step: a graph's outputs of the step before may be overwritten."""
        if self.mode == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()


def _likelihood_step(
    net: nn.Module, loss: Callable[[Any, Tensor], Tensor], model: Any, how: How
) -> Callable[[Tensor], None]:
    """The step of a model that is one network and one loss."""
    params = list(net.parameters())
    optimizer, ema = adam(params, model.optimizer), Average(params, model.ema)
    scale = 2.0 / (model.spec.levels - 1)

    def value(images: Tensor) -> Tensor:
        x = (images.float() * scale - 1).contiguous(memory_format=how.form)
        with how.autocast(images.device):
            return loss(net, x)

    value = how.compile(value)

    def step(images: Tensor) -> None:
        how.begin()
        optimizer.zero_grad(set_to_none=True)
        value(images).backward()
        optimizer.step()
        ema.update()

    return step


def _gan_step(g: nn.Module, d: nn.Module, model: jaxgen.GAN, how: How) -> Callable[[Tensor], None]:
    """GAN.train_step: D on real and on fake images, its update, then G through the updated D.

    Both players share one forward pass of G, and the generator's turn computes no gradient of
    D's parameters. D's running statistics move in all of its passes here, in ours with the real
    ones alone; nothing in the step reads them.
    """
    assert model.loss == "nonsaturating" and model.updates == "alternating" and model.d_steps == 1
    g_params, d_params = list(g.parameters()), list(d.parameters())
    g_adam, d_adam = adam(g_params, model.g_optimizer), adam(d_params, model.d_optimizer)
    statistics = [b for b in g.buffers() if b.is_floating_point()]
    ema = Average([*g_params, *statistics], model.ema)
    scale = 2.0 / (model.spec.levels - 1)

    def fakes(z: Tensor) -> Tensor:
        with how.autocast(z.device):
            return g(z)

    def d_loss(images: Tensor, fake: Tensor) -> Tensor:
        real = (images.float() * scale - 1).contiguous(memory_format=how.form)
        with how.autocast(images.device):
            return F.softplus(-d(real)).mean() + F.softplus(d(fake)).mean()

    def g_loss(fake: Tensor) -> Tensor:
        with how.autocast(fake.device):
            return F.softplus(-d(fake)).mean()

    fakes, d_loss, g_loss = (how.compile(f) for f in (fakes, d_loss, g_loss))

    def step(images: Tensor) -> None:
        how.begin()
        fake = fakes(torch.randn(len(images), model.latents, device=images.device))
        d_adam.zero_grad(set_to_none=True)
        d_loss(images, fake.detach()).backward()
        d_adam.step()
        d.requires_grad_(False)
        g_adam.zero_grad(set_to_none=True)
        g_loss(fake).backward()
        g_adam.step()
        d.requires_grad_(True)
        ema.update()

    return step


LOSSES = {"vae": vae_loss, **dict.fromkeys(peers_latent.NETWORKS, peers_latent.loss)}
DENSE = tuple(LOSSES)
"""Peers without convolutions, which have one memory layout."""


def networks(kind: str, model: Any) -> tuple[nn.Module, ...]:
    """The peer's networks, as they are initialized."""
    if kind in ("masked", "cropped"):
        return (pixelcnn(model, kind == "cropped"),)
    if kind in peers_latent.NETWORKS:
        return (peers_latent.network(kind, model),)
    return (generator(model), discriminator(model)) if kind == "dcgan" else (VAENet(model),)


def forget_compiled() -> None:
    """Between cases: compiled functions that share code are looked through at every call."""
    torch._dynamo.reset()


def sides(
    kind: str, model: Any, images: np.ndarray, batch: int, device: str, compiled: bool
) -> dict[str, Run]:
    """The variants of one peer, by name; `compiled` adds those of torch.compile."""
    found = {}
    for form in (NCHW,) if kind in DENSE else (NCHW, NHWC):
        for compile_it in (False, True) if compiled else (False,):
            name = "compile" if compile_it else "eager"
            name += " channels-last" if form is NHWC else ""
            how = How(form, "default" if compile_it else "")
            found[name] = side(kind, model, images, batch, device, how)
    return found


def side(kind: str, model: Any, images: np.ndarray, batch: int, device: str, how: How) -> Run:
    """The train steps of one variant of a peer."""
    form = how.form
    nets = tuple(n.to(device).to(memory_format=form) for n in networks(kind, model))
    data = torch.from_numpy(images).permute(0, 3, 1, 2).to(device).contiguous(memory_format=form)
    if kind == "dcgan":
        step = _gan_step(*nets, model, how)
    else:
        loss = LOSSES.get(kind, pixelcnn_loss)
        step = _likelihood_step(nets[0], loss, model, how)
    return _steps(step, data, batch)
