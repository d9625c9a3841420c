"""The PyTorch side of translation without pairs (see `peers.py`)."""

import torch
import torch.nn.functional as F
from peers_steps import Average, How, Step, adam, floats
from torch import Tensor, nn

from jaxgen.models.adversarial.cyclegan import CycleGAN


class Residual(nn.Module):
    """A block of `ResNet`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2)]
        norms = [nn.InstanceNorm2d(width, affine=True) for _ in range(2)]
        self.path = nn.Sequential(layers[0], norms[0], nn.ReLU(), layers[1], norms[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.path(x)


def translator(model: CycleGAN) -> nn.Sequential:
    """`ResNet`. Its strided layers pad the other side of the image: it is ours of images that are
    turned by half a turn, with kernels that are."""
    assert model.architecture == "resnet" and model.norm == "instance" and model.output == "tanh"
    assert model.spec.channels == model.source.channels and not model.dropout
    widths = [model.filters * min(2**i, 8) for i in range(model.halvings + 1)]
    pairs, layers = list(zip([model.spec.channels, *widths], widths, strict=False)), []
    for i, (a, b) in enumerate(pairs):
        layers += [nn.Conv2d(a, b, 3, 2 if i else 1, 1, bias=False)]
        layers += [nn.InstanceNorm2d(b, affine=True), nn.ReLU()]
    layers += [Residual(widths[-1]) for _ in range(model.blocks)]
    for b, a in pairs[:0:-1]:
        layers += [nn.ConvTranspose2d(a, b, 3, 2, 1, 1, bias=False)]
        layers += [nn.InstanceNorm2d(b, affine=True), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(widths[0], model.spec.channels, 3, 1, 1), nn.Tanh())


def judge(model: CycleGAN) -> nn.Sequential:
    """`PatchDiscriminator`."""
    assert model.d_norm == "instance"
    layers, last = [], model.spec.channels
    for i in range(model.d_halvings + 1):
        width, halves = model.d_filters * min(2**i, 8), i < model.d_halvings
        where = (2, 1) if halves else (1, "same")
        layers.append(nn.Conv2d(last, width, 4, *where, bias=i == 0))
        layers += [nn.InstanceNorm2d(width, affine=True)] if i else []
        layers.append(nn.LeakyReLU(0.2))
        last = width
    return nn.Sequential(*layers, nn.Conv2d(last, 1, 4, padding="same"))


def networks(model: CycleGAN) -> tuple[nn.Module, ...]:
    """Both generators and both discriminators."""
    return translator(model), translator(model), judge(model), judge(model)


class Pool:
    """`exchanged`: images that were made before, some of which are shown again."""

    def __init__(self, size: int) -> None:
        self.size, self.images = size, []

    def exchange(self, made: Tensor) -> Tensor:
        shown = []
        for image, lucky in zip(made, torch.rand(len(made)).tolist(), strict=True):
            if len(self.images) < self.size:
                self.images.append(image)
            elif lucky < 0.5:
                place = int(torch.randint(self.size, ()))
                self.images[place], image = image, self.images[place]
            shown.append(image)
        return torch.stack(shown)


def cycle_step(nets: tuple[nn.Module, ...], model: CycleGAN, how: How) -> Step:
    """CycleGAN.train_step, of batches whose first half are x and whose others are sources."""
    forth, back, d_x, d_source = nets
    assert not model.identity
    g_params = [*forth.parameters(), *back.parameters()]
    d_params = [*d_x.parameters(), *d_source.parameters()]
    g_adam, d_adam = adam(g_params, model.g_optimizer), adam(d_params, model.d_optimizer)
    ema, pools = Average(g_params, model.ema), (Pool(model.pool), Pool(model.pool))

    def g_loss(x: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with how.autocast(x.device):
            made_x, made_source = forth(source), back(x)
            passed = F.mse_loss(*real(d_x(made_x))) + F.mse_loss(*real(d_source(made_source)))
            cycle = F.l1_loss(forth(made_source), x) + F.l1_loss(back(made_x), source)
            return passed + model.cycle * cycle, made_x, made_source

    def d_loss(d: nn.Module, x: Tensor, fake: Tensor) -> Tensor:
        with how.autocast(x.device):
            judged = d(fake)
            return (F.mse_loss(*real(d(x))) + judged.square().mean()) / 2

    g_loss, d_loss = how.compile(g_loss), how.compile(d_loss)

    def step(images: Tensor) -> None:
        how.begin()
        x, source = floats(images, model.spec.levels, how.form).chunk(2)
        for d in (d_x, d_source):
            d.requires_grad_(False)
        g_adam.zero_grad(set_to_none=True)
        loss, *made = g_loss(x, source)
        loss.backward()
        for d in (d_x, d_source):
            d.requires_grad_(True)
        shown = [pool.exchange(each.detach()) for pool, each in zip(pools, made, strict=True)]
        d_adam.zero_grad(set_to_none=True)
        (d_loss(d_x, x, shown[0]) + d_loss(d_source, source, shown[1])).backward()
        g_adam.step()
        d_adam.step()
        ema.update()

    return step


def real(judged: Tensor) -> tuple[Tensor, Tensor]:
    """What a discriminator makes of images, and what it is to make of real ones."""
    return judged, torch.ones_like(judged)
