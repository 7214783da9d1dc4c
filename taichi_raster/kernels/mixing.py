"""Colours of a picture whose fragments' weights are known, and their adjoints."""

# mypy: disable-error-code="no-untyped-def, valid-type"

import taichi as ti

from taichi_raster.kernels.footprints import FLOATS, INTS, Footprints, Size


@ti.data_oriented
class Mixing(Footprints):
    """Attributes at corners, times the weights of `Visibility`, summed over a pixel's fragments."""

    @ti.kernel
    def mix(
        self,
        listed: INTS,
        firsts: INTS,
        ends: INTS,
        slots: INTS,
        weights: FLOATS,
        attributes: FLOATS,
        image: FLOATS,
        size: INTS,
    ):
        """The picture without a background: C channels, and alpha."""
        for p in range(size[Size.BATCH] * size[Size.HEIGHT] * size[Size.WIDTH]):
            channels = size[Size.CHANNELS]
            to = (channels + 1) * p
            for c in range(channels + 1):
                image[to + c] = 0
            for at in range(firsts[p], ends[p]):
                u, v, w = weights[3 * at], weights[3 * at + 1], weights[3 * at + 2]
                if u + v + w > 0:
                    pair = slots[at]
                    corner = 3 * channels * listed[ti.select(pair < 0, -1 - pair, pair)]
                    for c in range(channels):
                        image[to + c] = image[to + c] + (
                            u * attributes[corner + c]
                            + v * attributes[corner + channels + c]
                            + w * attributes[corner + 2 * channels + c]
                        )
                    image[to + channels] = image[to + channels] + (u + v + w)

    @ti.kernel
    def unmix_tiles(
        self,
        listed: INTS,
        firsts: INTS,
        ends: INTS,
        slots: INTS,
        weights: FLOATS,
        attributes: FLOATS,
        grad: FLOATS,
        adjoints: FLOATS,
        pairs: FLOATS,
        size: INTS,
    ):
        """The adjoints of the weights, and of the attributes for each (tile, face); on a CPU."""
        for slot in range(size[Size.WORKERS] * 512):
            if slot & 511 == 0:
                worker = slot // 512
                for tile in range(self.first_of(worker, size), self.first_of(worker + 1, size)):
                    b, left, right, top, bottom = self.box_of(tile, size)
                    for row in range(top, bottom):
                        p = (b * size[Size.HEIGHT] + row) * size[Size.WIDTH]
                        for column in range(left, right):
                            self.unmix(
                                listed,
                                firsts,
                                ends,
                                slots,
                                weights,
                                attributes,
                                grad,
                                adjoints,
                                pairs,
                                size,
                                p + column,
                            )

    @ti.kernel
    def unmix_pixels(
        self,
        listed: INTS,
        firsts: INTS,
        ends: INTS,
        slots: INTS,
        weights: FLOATS,
        attributes: FLOATS,
        grad: FLOATS,
        adjoints: FLOATS,
        pairs: FLOATS,
        size: INTS,
    ):
        """The same on a GPU."""
        for p in range(size[Size.BATCH] * size[Size.HEIGHT] * size[Size.WIDTH]):
            self.unmix(
                listed,
                firsts,
                ends,
                slots,
                weights,
                attributes,
                grad,
                adjoints,
                pairs,
                size,
                p,
            )

    @ti.func
    def unmix(
        self,
        listed: ti.template(),
        firsts: ti.template(),
        ends: ti.template(),
        slots: ti.template(),
        weights: ti.template(),
        attributes: ti.template(),
        grad: ti.template(),
        adjoints: ti.template(),
        pairs: ti.template(),
        size: ti.template(),
        p,
    ):
        channels = size[Size.CHANNELS]
        of = (channels + 1) * p
        for at in range(firsts[p], ends[p]):
            u, v, w = weights[3 * at], weights[3 * at + 1], weights[3 * at + 2]
            if u + v + w > 0:
                pair = slots[at]
                pair = ti.select(pair < 0, -1 - pair, pair)
                corner = 3 * channels * listed[pair]
                into = 3 * channels * pair
                first = grad[of + channels]
                second, third = first, first
                for c in range(channels):
                    g = grad[of + c]
                    first += g * attributes[corner + c]
                    second += g * attributes[corner + channels + c]
                    third += g * attributes[corner + 2 * channels + c]
                    self.add(pairs, into + c, u * g)
                    self.add(pairs, into + channels + c, v * g)
                    self.add(pairs, into + 2 * channels + c, w * g)
                adjoints[3 * at] = first
                adjoints[3 * at + 1] = second
                adjoints[3 * at + 2] = third
            else:
                for i in ti.static(range(3)):
                    adjoints[3 * at + i] = 0
