"""The same networks and the same train steps, written in PyTorch: the other side of train_step.py.

Each mirrors one of our models layer by layer: widths, activations, normalization, loss, Adam and
its constants, the moving average of the parameters, the batch gathered from uint8 images that lie
on the device. Our steps also look whether everything is finite; these do not.

Each peer comes in variants (memory layout, compiled or not), and `train_step.py` takes the best.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import peers_games
import peers_latent
import peers_translation
import torch
import torch.nn.functional as F
from peers_steps import NCHW, NHWC, Average, How, Run, Step, adam, floats, steps
from torch import Tensor, nn

import jaxgen

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


def live_parameters(*modules: nn.Module) -> int:
    """Parameters that a mask does not hold at zero."""
    total = 0
    for module in modules:
        total += sum(p.numel() for p in module.parameters())
        masks = [m.mask for m in module.modules() if isinstance(m, MaskedConv)]
        total -= sum(int((mask == 0).sum()) for mask in masks)
    return total


def _likelihood_step(
    net: nn.Module, loss: Callable[[Any, Tensor], Tensor], model: Any, how: How
) -> Step:
    """The step of a model that is one network and one loss."""
    params = list(net.parameters())
    optimizer, ema = adam(params, model.optimizer), Average(params, model.ema)

    def value(images: Tensor) -> Tensor:
        x = floats(images, model.spec.levels, how.form)
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


LOSSES = {"vae": vae_loss, **dict.fromkeys(peers_latent.NETWORKS, peers_latent.loss)}
DENSE = tuple(LOSSES)
"""Peers without convolutions, which have one memory layout."""


def networks(kind: str, model: Any) -> tuple[nn.Module, ...]:
    """The peer's networks, as they are initialized."""
    if kind in ("masked", "cropped"):
        return (pixelcnn(model, kind == "cropped"),)
    if kind in peers_latent.NETWORKS:
        return (peers_latent.network(kind, model),)
    if kind in peers_games.PLAYERS:
        return tuple(player(model) for player in peers_games.PLAYERS[kind])
    return peers_translation.networks(model) if kind == "cyclegan" else (VAENet(model),)


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
    if kind == "cyclegan":
        return steps(peers_translation.cycle_step(nets, model, how), data, 2 * batch)
    if kind in peers_games.PLAYERS:
        return steps(peers_games.game_step(*nets, model, how), data, batch)
    step = _likelihood_step(nets[0], LOSSES.get(kind, pixelcnn_loss), model, how)
    return steps(step, data, batch)
