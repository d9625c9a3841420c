"""The PyTorch side of two-player games (see `peers.py`)."""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from peers_steps import Average, How, Step, adam, floats
from torch import Tensor, nn

import jaxgen
from jaxgen.models.adversarial.progan import ProGAN
from jaxgen.models.adversarial.stylegan2 import StyleGAN2
from jaxgen.nn.progressive import features_of
from jaxgen.nn.style import features_at, style_layers, style_sizes

GAIN = 2.0**0.5


class Generator(nn.Sequential):
    """Generator of a 32x32 DCGAN: latents [b z] -> images [b c 32 32] in [-1, 1]."""

    def __init__(self, model: jaxgen.GAN) -> None:
        assert model.convolutional and model.spec.shape[:2] == (32, 32)
        f, channels = model.filters, model.spec.channels
        layers: list[nn.Module] = [nn.Linear(model.latents, 4 * 4 * 4 * f, bias=False)]
        layers += [nn.Unflatten(1, (4 * f, 4, 4)), nn.BatchNorm2d(4 * f), nn.ReLU()]
        for i, o in ((4 * f, 2 * f), (2 * f, f)):
            layers += [nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        super().__init__(*layers, nn.ConvTranspose2d(f, channels, 4, 2, 1), nn.Tanh())


class Discriminator(nn.Sequential):
    """Discriminator of a 32x32 DCGAN: images -> logits [b 1]."""

    def __init__(self, model: jaxgen.GAN) -> None:
        f = model.filters
        layers: list[nn.Module] = [nn.Conv2d(model.spec.channels, f, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i, o in ((f, 2 * f), (2 * f, 4 * f)):
            layers += [nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Flatten(), nn.Linear(4 * 4 * 4 * f, 1))


class EqualConv(nn.Module):
    """`EqualizedConv`."""

    def __init__(self, i: int, o: int, kernel: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(o))
        self.scale, self.padding = gain / (i * kernel**2) ** 0.5, kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class EqualDense(nn.Module):
    """`EqualizedDense`."""

    def __init__(self, i: int, o: int, gain: float = 1.0, rate: float = 1.0, bias: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i) / rate)
        self.bias = nn.Parameter(torch.full((o,), bias / rate))
        self.scale, self.rate = gain * rate / i**0.5, rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


def pixel_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def deviation(x: Tensor, group: int) -> Tensor:
    """`minibatch_deviation`."""
    groups = x.unflatten(0, (-1, group))
    mean = (groups.var(1, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    one = mean.repeat_interleave(group)[:, None, None, None]
    return torch.cat([x, one.expand(-1, 1, *x.shape[2:])], 1)


def doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class ProgressiveUp(nn.Module):
    """A size of `ProgressiveGenerator` after the first."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([EqualConv(i, o, 3, GAIN), EqualConv(o, o, 3, GAIN)])

    def forward(self, x: Tensor) -> Tensor:
        x = doubled(x)
        for conv in self.convs:
            x = pixel_norm(F.leaky_relu(conv(x), 0.2))
        return x


class ProGANGenerator(nn.Module):
    """`ProgressiveGenerator` at its last level, all faded in."""

    def __init__(self, model: ProGAN) -> None:
        super().__init__()
        wide, self.size = features_of(model.filters, model.sizes), model.sizes[0]
        area, channels = self.size[0] * self.size[1], model.spec.channels
        self.dense = EqualDense(model.latents, area * wide[0], GAIN)
        self.first = EqualConv(wide[0], wide[0], 3, GAIN)
        self.ups = nn.ModuleList([ProgressiveUp(*pair) for pair in pairwise(wide)])
        self.to_image = nn.ModuleList([EqualConv(n, channels, 1) for n in wide])
        self.register_buffer("alpha", torch.ones(()))

    def forward(self, z: Tensor) -> Tensor:
        h = F.leaky_relu(self.dense(z).unflatten(1, (-1, *self.size)), 0.2)
        h = pixel_norm(F.leaky_relu(self.first(pixel_norm(h)), 0.2))
        before = h
        for up in self.ups:
            before, h = h, up(h)
        old = doubled(self.to_image[-2](before))
        return self.alpha * self.to_image[-1](h) + (1 - self.alpha) * old


class ProGANDiscriminator(nn.Module):
    """`ProgressiveDiscriminator` at its last level, all faded in."""

    def __init__(self, model: ProGAN) -> None:
        super().__init__()
        wide, self.group = features_of(model.filters, model.sizes), model.deviation_group
        channels, area = model.spec.channels, model.sizes[0][0] * model.sizes[0][1]
        self.from_image = nn.ModuleList([EqualConv(channels, n, 1, GAIN) for n in wide])
        pairs = [(i, o) for o, i in pairwise(wide)]
        self.first = nn.ModuleList([EqualConv(i, i, 3, GAIN) for i, _ in pairs])
        self.second = nn.ModuleList([EqualConv(i, o, 3, GAIN) for i, o in pairs])
        self.last = EqualConv(wide[0] + 1, wide[0], 3, GAIN)
        self.dense = EqualDense(area * wide[0], wide[0], GAIN)
        self.logit = EqualDense(wide[0], 1)
        self.register_buffer("alpha", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        top = len(self.first) - 1
        h = F.leaky_relu(self.from_image[-1](x), 0.2)
        for i in range(top, -1, -1):
            h = F.leaky_relu(self.second[i](F.leaky_relu(self.first[i](h), 0.2)), 0.2)
            h = F.avg_pool2d(h, 2)
            if i == top:
                old = F.leaky_relu(self.from_image[i](F.avg_pool2d(x, 2)), 0.2)
                h = self.alpha * h + (1 - self.alpha) * old
        h = F.leaky_relu(self.last(deviation(h, self.group)), 0.2)
        return self.logit(F.leaky_relu(self.dense(h.flatten(1)), 0.2))[:, 0]


def act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * GAIN


class StyledConv(nn.Module):
    """`StyledConv`, by scaling what goes in and what comes out, as ours."""

    def __init__(self, i: int, o: int, styles: int) -> None:
        super().__init__()
        self.style = EqualDense(styles, i, bias=1.0)
        self.weight = nn.Parameter(torch.randn(o, i, 3, 3))
        self.strength, self.bias = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(o))
        self.scale = (9 * i) ** -0.5

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style, weight = self.style(w), self.weight * self.scale
        norm = torch.rsqrt(style.square() @ weight.square().sum((2, 3)).T + 1e-8)
        y = F.conv2d(x * style[:, :, None, None], weight, padding=1) * norm[:, :, None, None]
        noise = torch.randn(len(x), 1, *x.shape[2:], device=x.device)
        return act(y + self.strength * noise + self.bias[:, None, None])


class ToData(nn.Module):
    """`ToData`."""

    def __init__(self, i: int, channels: int, styles: int) -> None:
        super().__init__()
        self.style = EqualDense(styles, i, bias=1.0)
        self.weight, self.scale = nn.Parameter(torch.randn(channels, i, 1, 1)), i**-0.5
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scaled = x * self.style(w)[:, :, None, None]
        return F.conv2d(scaled, self.weight * self.scale, self.bias)


class StyleGAN2Generator(nn.Module):
    """`StyleGenerator` with noise and bilinear maps; in training, with two latents an image."""

    def __init__(self, model: StyleGAN2) -> None:
        super().__init__()
        assert model.noise and model.upsample == "bilinear"
        height, width = model.spec.shape[:2]
        sizes, self.mixing = style_sizes(height, width), model.mixing
        wide, self.layers = features_at(model.filters, len(sizes)), style_layers(height, width)
        to_w = [model.latents, *[model.styles] * model.mapping]
        self.mapping = nn.ModuleList([EqualDense(i, o, rate=0.01) for i, o in pairwise(to_w)])
        self.first = nn.Parameter(torch.randn(1, wide[0], *sizes[0]))
        self.convs = nn.ModuleList([StyledConv(wide[0], wide[0], model.styles)])
        for i, o in pairwise(wide):
            self.convs.append(StyledConv(i, o, model.styles))
            self.convs.append(StyledConv(o, o, model.styles))
        to_data = [ToData(n, model.spec.channels, model.styles) for n in wide]
        self.to_data = nn.ModuleList(to_data)
        self.register_buffer("w_mean", torch.zeros(model.styles))

    def styled(self, z: Tensor) -> Tensor:
        h = pixel_norm(z)
        for layer in self.mapping:
            h = act(layer(h))
        return h

    def draw(self, w: Tensor, other: Tensor | None, crossing: Tensor | None) -> Tensor:
        """Data of w, and of the other one from layer `crossing` on."""

        def style(layer: int) -> Tensor:
            if other is None or crossing is None:
                return w
            return torch.where((layer < crossing)[:, None], w, other)

        def larger(x: Tensor) -> Tensor:
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

        x = self.convs[0](self.first.expand(len(w), -1, -1, -1), style(0))
        shown = self.to_data[0](x, style(1))
        for i in range(1, len(self.to_data)):
            x, shown = larger(x), larger(shown)
            for layer in (2 * i - 1, 2 * i):
                x = self.convs[layer](x, style(layer))
            shown = shown + self.to_data[i](x, style(2 * i + 1))
        return shown

    def forward(self, z: Tensor) -> Tensor:
        w = self.styled(z)
        with torch.no_grad():
            self.w_mean.lerp_(w.float().mean(0), 0.005)
        if not self.mixing:
            return self.draw(w, None, None)
        layers, like = self.layers, {"size": (len(z),), "device": z.device}
        crossing = torch.randint(1, layers, **like)
        mixes = torch.rand(**like) < self.mixing
        crossing = torch.where(mixes, crossing, layers)
        return self.draw(w, self.styled(torch.randn_like(z)), crossing)


class StyleGAN2Discriminator(nn.Module):
    """`ResidualDiscriminator`."""

    def __init__(self, model: StyleGAN2) -> None:
        super().__init__()
        height, width, channels = model.spec.shape
        sizes, self.group = style_sizes(height, width), model.deviation_group
        wide = features_at(model.filters, len(sizes))[::-1]
        pairs, area = list(pairwise(wide)), sizes[0][0] * sizes[0][1]
        self.from_data = EqualConv(channels, wide[0], 1)
        self.skips = nn.ModuleList([EqualConv(i, o, 1) for i, o in pairs])
        self.first = nn.ModuleList([EqualConv(i, i, 3) for i, _ in pairs])
        self.second = nn.ModuleList([EqualConv(i, o, 3) for i, o in pairs])
        self.last = EqualConv(wide[-1] + 1, wide[-1], 3)
        self.dense, self.logit = EqualDense(area * wide[-1], wide[-1]), EqualDense(wide[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        h = act(self.from_data(x))
        for skip, first, second in zip(self.skips, self.first, self.second, strict=True):
            beside = skip(F.avg_pool2d(h, 2))
            h = (F.avg_pool2d(act(second(act(first(h)))), 2) + beside) * 0.5**0.5
        h = act(self.last(deviation(h, self.group)))
        return self.logit(act(self.dense(h.flatten(1))))[:, 0]


PLAYERS: dict[str, tuple[Any, Any]] = {
    "dcgan": (Generator, Discriminator),
    "progan": (ProGANGenerator, ProGANDiscriminator),
    "stylegan2": (StyleGAN2Generator, StyleGAN2Discriminator),
}


def game_step(g: nn.Module, d: nn.Module, model: Any, how: How) -> Step:
    """Game.train_step: D on real and on fake images, its update, then G through the updated D.

    Both players share one forward pass of G, and the generator's turn computes no gradient of
    D's parameters. BatchNorm's statistics of D move in all of its passes here, in ours with the
    real ones alone; nothing in the step reads them. R1, which torch.compile does not differentiate
    twice, runs as it is.
    """
    assert model.loss == "nonsaturating" and model.updates == "alternating" and model.d_steps == 1
    g_params, d_params = list(g.parameters()), list(d.parameters())
    g_adam, d_adam = adam(g_params, model.g_optimizer), adam(d_params, model.d_optimizer)
    statistics = [b for b in g.buffers() if b.is_floating_point()]
    ema, done = Average([*g_params, *statistics], model.ema), 0

    def fakes(z: Tensor) -> Tensor:
        with how.autocast(z.device):
            return g(z)

    def d_loss(real: Tensor, fake: Tensor) -> Tensor:
        with how.autocast(real.device):
            return F.softplus(-d(real)).mean() + F.softplus(d(fake)).mean()

    def penalty(real: Tensor) -> Tensor:
        real = real.detach().requires_grad_()
        with how.autocast(real.device):
            (slope,) = torch.autograd.grad(d(real).sum(), real, create_graph=True)
        return 0.5 * model.r1 * model.penalty_every * slope.square().sum((1, 2, 3)).mean()

    def g_loss(fake: Tensor) -> Tensor:
        with how.autocast(fake.device):
            return F.softplus(-d(fake)).mean()

    fakes, d_loss, g_loss = (how.compile(f) for f in (fakes, d_loss, g_loss))

    def step(images: Tensor) -> None:
        nonlocal done
        how.begin()
        real = floats(images, model.spec.levels, how.form)
        fake = fakes(torch.randn(len(images), model.latents, device=images.device))
        d_adam.zero_grad(set_to_none=True)
        d_loss(real, fake.detach()).backward()
        if model.r1 and done % model.penalty_every == 0:
            penalty(real).backward()
        d_adam.step()
        d.requires_grad_(False)
        g_adam.zero_grad(set_to_none=True)
        g_loss(fake).backward()
        g_adam.step()
        d.requires_grad_(True)
        ema.update()
        done += 1

    return step
