"""The PyTorch side of latent variables in layers, and of a flow's posterior (see `peers.py`)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jaxgen
from jaxgen.causal.masked import layer_masks
from jaxgen.models.latent.iaf import IAF
from jaxgen.models.latent.ladder import Ladder


class LadderPeer(nn.Module):
    """LadderNet of two layers, fully connected, Bernoulli, no dropout."""

    def __init__(self, model: Ladder) -> None:
        super().__init__()
        assert model.architecture == "mlp" and model.inference == "ladder" and not model.dropout
        assert len(model.latents) == 2 and model.depth == 1 and model.prior == "independent"
        (low, high), (below, above), dims = model.latents, model.hidden, model.spec.dims
        self.encoder, self.up_0 = nn.Linear(dims, below), nn.Linear(below, 2 * low)
        self.up_hidden, self.up_1 = nn.Linear(below, above), nn.Linear(above, 2 * high)
        self.down_hidden, self.down_0 = nn.Linear(high, above), nn.Linear(above, 2 * low)
        self.decoder, self.out = nn.Linear(low, below), nn.Linear(below, dims)
        self.sizes = low, high

    def loss(self, x: Tensor, noise: Tensor) -> Tensor:
        """Minus the ELBO in nats per image of x in {-1, 1}; noise [b z] of both layers, the
        topmost first."""
        target = (1 + x.flatten(1)) / 2
        top, bottom = noise.split((self.sizes[1], self.sizes[0]), -1)
        h = F.relu(self.encoder(target))
        mean, logvar = gaussian(self.up_0(h))
        top_mean, top_logvar = gaussian(self.up_1(F.relu(self.up_hidden(h))))
        z = top_mean + torch.exp(0.5 * top_logvar) * top
        prior, prior_logvar = gaussian(self.down_0(F.relu(self.down_hidden(z))))
        precisions = torch.exp(-logvar), torch.exp(-prior_logvar)
        q_logvar = -torch.logaddexp(-logvar, -prior_logvar)
        q = (precisions[0] * mean + precisions[1] * prior) * torch.exp(q_logvar)
        logits = self.out(F.relu(self.decoder(q + torch.exp(0.5 * q_logvar) * bottom)))
        nll = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        over = (q - prior) * torch.exp(-0.5 * prior_logvar)
        kl = kl_standard(top_mean, top_logvar) + kl_standard(over, q_logvar - prior_logvar)
        return (nll + kl) / len(x)


class MaskedStep(nn.Module):
    """A step of an inverse autoregressive flow: `MaskedMLP` of one hidden layer."""

    def __init__(self, dims: int, hidden: int, context: int) -> None:
        super().__init__()
        first, last = (torch.from_numpy(m).float() for m in layer_masks(dims, (hidden,)))
        self.register_buffer("first", first)
        self.register_buffer("last", last)
        self.kernel = nn.Parameter(torch.randn(dims, hidden) * (dims / 2) ** -0.5)
        self.kernel_out = nn.Parameter(torch.zeros(hidden, dims, 2))
        self.context, self.context_out = nn.Linear(context, hidden), nn.Linear(context, 2 * dims)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Log scales and shifts [b d]."""
        h = F.relu(z @ (self.kernel * self.first) + self.context(context))
        kernel = (self.kernel_out * self.last[..., None]).flatten(1)
        out = (h @ kernel + self.context_out(context)).unflatten(1, (-1, 2))
        return math.log(2.0) + F.logsigmoid(out[..., 0]), out[..., 1]


class IAFPeer(nn.Module):
    """IAFNet of fully connected layers, Bernoulli, no dropout."""

    def __init__(self, model: IAF) -> None:
        super().__init__()
        assert model.architecture == "mlp" and not model.dropout
        (hidden,), (width,), dims = model.hidden, model.flow_hidden, model.spec.dims
        self.encoder, self.posterior = nn.Linear(dims, hidden), nn.Linear(hidden, 2 * model.latents)
        self.to_context = nn.Linear(hidden, model.context)
        steps = [MaskedStep(model.latents, width, model.context) for _ in range(model.flows)]
        self.flow = nn.ModuleList(steps)
        self.decoder, self.out = nn.Linear(model.latents, hidden), nn.Linear(hidden, dims)
        self.sizes = (model.latents,)

    def loss(self, x: Tensor, noise: Tensor) -> Tensor:
        """Minus the ELBO in nats per image of x in {-1, 1}, its KL estimated by the draw."""
        target = (1 + x.flatten(1)) / 2
        h = F.relu(self.encoder(target))
        mean, logvar = gaussian(self.posterior(h))
        context, z = self.to_context(h), mean + torch.exp(0.5 * logvar) * noise
        log_scale = 0.5 * logvar
        for i, step in enumerate(self.flow):
            log_s, shift = step(z.flip(-1) if i % 2 else z, context)
            if i % 2:
                log_s, shift = log_s.flip(-1), shift.flip(-1)
            z, log_scale = torch.exp(log_s) * z + shift, log_scale + log_s
        nll = F.binary_cross_entropy_with_logits(
            self.out(F.relu(self.decoder(z))), target, reduction="sum"
        )
        # log q(z | x) - log p(z): the two constants are the same.
        kl = 0.5 * (z**2 - noise**2).sum() - log_scale.sum()
        return (nll + kl) / len(x)


def gaussian(both: Tensor) -> tuple[Tensor, Tensor]:
    """Means and log variances, the latter clipped as ours."""
    mean, logvar = both.chunk(2, dim=-1)
    return mean, logvar.clamp(-15, 15)


def kl_standard(mean: Tensor, logvar: Tensor) -> Tensor:
    """The sum of KL(N(mean, exp(logvar)) || N(0, 1))."""
    return 0.5 * (logvar.exp() + mean**2 - 1 - logvar).sum()


def loss(net: LadderPeer | IAFPeer, x: Tensor) -> Tensor:
    """Minus the ELBO in nats per image of x in {-1, 1}."""
    return net.loss(x, torch.randn(len(x), sum(net.sizes), device=x.device))


NETWORKS = {"ladder": LadderPeer, "iaf": IAFPeer}


def network(kind: str, model: jaxgen.Model) -> nn.Module:
    """The peer of that kind."""
    return NETWORKS[kind](model)
