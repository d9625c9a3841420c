"""PixelCNN++ (Salimans, Karpathy, Chen & Kingma 2017, arXiv:1701.05517)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.causal.condition import NOTHING, Condition
from jaxgen.causal.pyramid import Pyramid, StreamConv, Whole
from jaxgen.causal.pyramid_runners import AboveOfRow, Pixel, Row, write_pixel
from jaxgen.causal.streamed import StreamedNet, recall, remember
from jaxgen.causal.streamed_layers import DownConv, Head, shift_down, shift_right
from jaxgen.distributions.likelihoods import Likelihood
from jaxgen.distributions.mixtures import LogisticMixture, couple, num_coupled_params
from jaxgen.errors import UserError
from jaxgen.fields import Only, Repeats
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.nn.layers import concat_elu, fold_keys


class MixtureHead(nn.Module):
    """From a pixel's features to a logistic mixture for each of its channels, coupled."""

    channels: int
    mixture: LogisticMixture

    @nn.compact
    def __call__(
        self, features: Float[Array, "*b f"], x: Float[Array, "*b c"]
    ) -> Float[Array, "*b c p"]:
        """x: the pixel's levels in [-1, 1], of which channel d sees those before d."""
        raw = nn.Dense(num_coupled_params(self.mixture.components, self.channels))(features)
        # Masses are float32 at least, whatever the network computes in.
        wide = jnp.promote_types(raw.dtype, jnp.float32)
        raw, x = raw.astype(wide), x.astype(wide)
        levels = jnp.round((x + 1.0) * ((self.mixture.levels - 1) / 2.0)).astype(jnp.int32)
        return couple(self.mixture, raw, levels)


class PixelCNNPPNet(StreamedNet):
    """Two streams: one sees all rows above, the other also what stands to the left."""

    width: int
    blocks: int
    scales: int
    dropout: float
    channels: int
    likelihood: Likelihood

    def setup(self) -> None:
        self.first_above = StreamConv(self.width, "above")
        self.row_to_left = DownConv(self.width, 1, 3)
        self.pixel_to_left = nn.Dense(self.width, use_bias=False)
        self.above = Pyramid(self.width, "above", self.blocks, self.scales, self.dropout)
        self.left = Pyramid(self.width, "left", self.blocks, self.scales, self.dropout)
        if isinstance(self.likelihood, LogisticMixture):
            self.head: nn.Module = MixtureHead(self.channels, self.likelihood)
        else:
            self.head = Head(2 * self.width, self.channels, self.likelihood)

    def features(
        self,
        x: Float[Array, "b h w c"],
        condition: Condition = NOTHING,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w f"]:
        whole, down = Whole(), shift_down(_marked(x))
        keys_above, keys_left = fold_keys(keys, 0), fold_keys(keys, 1)
        _, seen = self.above(self.first_above(down), whole, condition, keys_above, None)
        start = self.row_to_left(down) + self.pixel_to_left(shift_right(_marked(x)))
        return concat_elu(self.left(start, whole, condition, keys_left, seen)[0])

    def begin_row(self, above: Float[Array, "b w c"], condition: Condition) -> None:
        row = recall(self, "row", (), jnp.int32)
        # Before the first row there is nothing, not even the mark of a pixel.
        x = jnp.where(row > 0, _marked(above)[:, None], 0.0)
        run = Row(row, self.get_variable("cache", "row_above"))
        _, seen = self.above(run.conv(self.first_above, x), run, condition, None, None)
        remember(self, "row_above", run.states)
        start = self.row_to_left(x)
        shares = AboveOfRow(row, self.get_variable("cache", "rows"))
        self.left(start, shares, condition, None, seen)
        remember(self, "start", start)
        remember(self, "rows", shares.rows)
        remember(self, "shares", shares.shares)
        nothing = jax.tree.map(lambda x: jnp.zeros_like(x[:, :, :1]), shares.rows)
        remember(self, "pixel_left", nothing)
        remember(self, "row", row + 1)

    def pixel(
        self, left: Float[Array, "b c"], column: Int[Array, ""], condition: Condition
    ) -> Float[Array, "b f"]:
        cache: dict[str, Any] = {
            name: self.get_variable("cache", name)
            for name in ("row", "start", "rows", "shares", "pixel_left")
        }
        row, maps = cache["row"] - 1, condition.maps
        condition = condition.having(None if maps is None else maps[:, None, None])
        run = Pixel(row, column, cache["shares"], cache["pixel_left"])
        x = jnp.where(column > 0, _marked(left)[:, None, None], 0.0)
        start = jax.lax.dynamic_slice_in_dim(cache["start"], column, 1, 2)
        out, _ = self.left(start + self.pixel_to_left(x), run, condition, None, None)
        remember(self, "pixel_left", run.states)
        remember(self, "rows", write_pixel(cache["rows"], run.states, row, column))
        return concat_elu(out[:, 0, 0])


def _marked(x: Float[Array, "*s c"]) -> Float[Array, "*s d"]:
    """The image with one more channel of ones, which tells its pixels from the padding."""
    return jnp.concatenate([x, jnp.ones_like(x[..., :1])], -1)


@dataclass(frozen=True)
class PixelCNNPP(Autoregressive):
    """Two streams of gated blocks at several resolutions, with short-cuts between them."""

    features: int = 24
    """Features of each stream."""
    blocks: Repeats = 1
    """Blocks of each stream at each resolution on the way down, and again on the way up (there
    one more, but for the lowest resolution)."""
    scales: Repeats = 2
    """Resolutions, each half of the one before; 1 = the image's own alone."""
    output: Literal["logistic_mixture", "categorical"] = "logistic_mixture"
    """The likelihood of images of more than two levels; that of two is Bernoulli."""
    components: int = 5
    """Logistic densities in the mixture."""

    only: ClassVar = {
        "components": Only(
            "without `output`=logistic_mixture and data of more than two levels",
            lambda model: model.mixture > 0 and model.spec.levels > 2,
        )
    }

    def checks(self) -> None:
        for name in ("features", "blocks", "scales", "components"):
            if getattr(self, name) < 1:
                raise UserError(f"`{name}` must be at least 1; got {getattr(self, name)}")

    @property
    def mixture(self) -> int:
        return self.components if self.output == "logistic_mixture" else 0

    @property
    def network(self) -> PixelCNNPPNet:
        return PixelCNNPPNet(
            width=self.features,
            blocks=self.blocks,
            scales=self.scales,
            dropout=self.dropout,
            channels=self.spec.channels,
            likelihood=self.likelihood,
        )

    def network_facts(self) -> dict[str, str]:
        """How far the prediction of a pixel reaches at least. Half the resolution reaches further,
        but of an odd row it knows nothing, and of the row above only what is to the left."""
        rows, columns = 4 * self.blocks, 4 * self.blocks + 1 + (self.scales > 1)
        for _ in range(self.scales - 1):
            rows = 2 * rows + 1 + 2 * (2 * self.blocks + 1)
        return {
            "sees": f"at least {rows + 2} rows above; in its own row at least {columns} columns to "
            "the left, and in the row above as many to the right"
        }
