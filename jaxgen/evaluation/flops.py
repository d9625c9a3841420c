"""What a function costs: the FLOPs of its matrix products and convolutions.

XLA's own count takes the body of a loop once, however often it runs: of scans over rows, over
parts of a batch or over blocks that are computed again, it would say too little.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core


def flops(function: Callable[..., Any], *args: Any) -> float:
    """The FLOPs of one call, two for each product that is added up, on arguments of these shapes.

    A scan counts as often as it runs, a `while` whose length is not known once, and of a `cond`
    the dearest branch.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def _of_jaxpr(jaxpr: core.Jaxpr) -> float:
    return sum(map(_of_equation, jaxpr.eqns))


def _of_equation(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _of_product(equation)
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    inner = [_of_jaxpr(jaxpr) for jaxpr in _within(params)]
    if name == "cond":
        return max(inner)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def _within(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The programs that an equation calls."""
    for param in params.values():
        for item in param if isinstance(param, tuple | list) else (param,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _of_product(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _of_convolution(equation: Any) -> float:
    """Products with padding, and with the zeros between the pixels of a dilated image, are not
    counted."""
    params, (left, right) = equation.params, (v.aval.shape for v in equation.invars)
    numbers, out = params["dimension_numbers"], equation.outvars[0].aval.shape
    batch, features = (out[i] for i in numbers.out_spec[:2])
    products = batch * features * right[numbers.rhs_spec[1]]
    for axis in range(len(out) - 2):
        products *= _met(
            *(shape[spec[axis + 2]] for shape, spec in (
                (left, numbers.lhs_spec), (right, numbers.rhs_spec), (out, numbers.out_spec)
            )),
            *(params[n][axis] for n in ("window_strides", "padding")),
            *(params[n][axis] for n in ("lhs_dilation", "rhs_dilation")),
        )  # fmt: skip
    return 2.0 * products


def _met(
    size: int, kernel: int, out: int, stride: int, padding: tuple[int, int], apart: int, holes: int
) -> int:
    """Along one axis, how many pairs of an output and a kernel's entry meet a pixel."""
    places = np.arange(out)[:, None] * stride + np.arange(kernel) * holes - padding[0]
    return int(((places >= 0) & (places <= (size - 1) * apart) & (places % apart == 0)).sum())
