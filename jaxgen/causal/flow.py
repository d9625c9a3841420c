"""Inverse autoregressive flow: noise to latents, each moved by what those before it say."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.causal.masked import layer_masks


class MaskedMLP(nn.Module):
    """Fully connected layers with masks: what is returned for an entry depends on the entries
    before it, and on the context, alone (Germain et al. 2015, arXiv:1502.03509). It returns zeros
    before training."""

    hidden: tuple[int, ...]
    """Widths of the hidden layers, one or more."""
    outputs: int
    """Numbers that are returned for an entry."""

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], context: Float[Array, "b f"]
    ) -> Float[Array, "b d p"]:
        dims = z.shape[-1]
        *masks, last = map(jnp.asarray, layer_masks(dims, self.hidden))
        h = z
        for i, mask in enumerate(masks):
            # Half of the units of the layer before are seen, on average.
            init = nn.initializers.normal((len(mask) / 2) ** -0.5)
            kernel = self.param(f"kernel_{i}", init, mask.shape)
            shift = nn.Dense(mask.shape[1], name=f"context_{i}")(context)
            h = jax.nn.relu(h @ (kernel * mask) + shift)
        shape = (*last.shape, self.outputs)
        kernel = self.param("kernel_out", nn.initializers.zeros, shape) * last[..., None]
        shift = nn.Dense(
            dims * self.outputs, kernel_init=nn.initializers.zeros, name="context_out"
        )(context)
        return jnp.einsum("bf,fdp->bdp", h, kernel) + shift.reshape(-1, dims, self.outputs)


class InverseAutoregressiveFlow(nn.Module):
    """Steps z' = s z + m, whose scales s and shifts m for an entry are made of the entries before
    it; every other step takes them in reversed order (Kingma et al. 2016, arXiv:1606.04934). Scales
    lie between 0 and 2, and every step is the identity before training."""

    steps: int
    hidden: tuple[int, ...]
    """Widths of the hidden layers of each step."""

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], context: Float[Array, "b f"]
    ) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
        """The entries after the last step, and the log of the product of their scales: it sums to
        the log-determinant of the Jacobian."""
        log_scale = jnp.zeros_like(z)
        for i in range(self.steps):
            flip = (lambda x: x[:, ::-1]) if i % 2 else (lambda x: x)
            out = MaskedMLP(self.hidden, 2, name=f"step_{i}")(flip(z), context)
            log_s = flip(jnp.log(2.0) + jax.nn.log_sigmoid(out[..., 0]))
            z, log_scale = jnp.exp(log_s) * z + flip(out[..., 1]), log_scale + log_s
        return z, log_scale
