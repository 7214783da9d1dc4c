"""Small Taichi functions that the kernels share."""

import taichi as ti

from taichi_raster.runtime import runtime


class _Types:
    """The runtime's number types, looked up when a kernel is compiled."""

    @property
    def real(self):
        return runtime().ti_float

    @property
    def single(self) -> bool:
        return runtime().precision == "f32"

    @property
    def bits(self):
        return runtime().ti_bits


types = _Types()


@ti.func
def frozen(value):
    """`value` with no derivative: autodiff does not follow it through the integers."""
    return ti.bit_cast(ti.bit_cast(value, types.bits), types.real)


@ti.func
def with_slope(value, slope, x):
    """`value`, whose derivative with respect to `x` is `slope`, whatever formula gave them.

    So a function is computed by whatever is accurate, and differentiated by its closed form.
    """
    return frozen(value) + slope * (x - frozen(x))


@ti.func
def polynomial(x, coefficients: ti.template()):
    """Horner's rule; coefficients from the highest power down."""
    total = 0.0 * x
    for i in ti.static(range(len(coefficients))):
        total = total * x + coefficients[i]
    return total
