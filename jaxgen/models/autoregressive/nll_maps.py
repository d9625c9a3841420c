"""Pictures of where a model is surprised."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jaxgen.model import Inspection


def nll_maps(nats: Float[Array, "b h w"], x: Shaped[Array, "b h w c"]) -> Inspection:
    """The NLL of every place in nats: its mean over the batch, and for the first examples.

    Where x is one row, such as a sound, its map is one row of a picture of many.
    """
    if nats.shape[1] == 1:
        mean = jnp.broadcast_to(nats.mean(0), (1, 1, 4, nats.shape[2]))
        maps = {
            "NLL per sample (nats), a row each": nats[None, None, :16, 0],
            "mean NLL per sample (nats)": mean,
        }
        return Inspection({}, {"rows of the NLL map below": x[None, :16]}, maps)
    maps = {
        "NLL per pixel (nats)": nats[None, :16],
        "mean NLL per pixel (nats)": nats.mean(0)[None, None],
    }
    return Inspection({}, {"images of the NLL maps below": x[None, :16]}, maps)
