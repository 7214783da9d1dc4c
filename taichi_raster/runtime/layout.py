"""The layout of a call's inputs in the flat vector x, and of its sums in the flat vector y.

x concatenates these parts (see `Part`):

* face vertices (B, F, 3, 3);
* attributes at face corners (B, F, 3, D);
* texture coordinates at face corners (B, F, 3, 2);
* weights of the edge network (B, P) and of the depth network (B, Q);
* other parameters (B, Slot.COUNT).

A texture's texels are no part of it, as they may be many: kernels read them where they are. Where
kernels cannot, on Vulkan and under Taichi's autodiff, a copy of them lies behind x.

Every batch item has parameters of its own. So threads do not contend for them, and a sum over items
has a fixed order. y is (2 + C, B, H, W): the T-conorm's sum, the colour weight, and the weighted
attributes.
"""

SHIFT = 3
TILE = 1 << SHIFT  # pixels on a side
RUNS = 64  # runs of a parallel loop on a CPU; at least one for each batch item
MIPMAPS = 17  # levels at most: a texture has up to 2^16 texels on a side


class Slot:
    """Columns of a batch item's parameters."""

    SCALE = 0
    SHAPE = 1
    SHIFT = 2
    P = 3
    GAMMA = 4
    DEPTH_SHAPE = 5
    DEPTH_SHIFT = 6
    COUNT = 7


class Part:
    """The parts of x, in order, and the texels behind it."""

    VERTICES = 0
    CORNERS = 1
    UV = 2
    EDGE_WEIGHTS = 3
    DEPTH_WEIGHTS = 4
    PARAMETERS = 5
    TEXELS = 6
    COUNT = 7


class Dim:
    """Elements of the small integer field that holds the sizes of the current call."""

    BATCH = 0
    FACES = 1
    HEIGHT = 2
    WIDTH = 3
    TILES_X = 4
    TILES = 5  # in one image
    RUN_LENGTH = 6  # pixels that one thread processes in order
    TEXTURE_HEIGHT = 7
    TEXTURE_WIDTH = 8
    TEXTURE_STRIDE = 9  # elements from one batch item's texture to the next; 0 if shared
    PIXELS = 10  # in the whole batch
    LAST_LEVEL = 11  # of mipmaps, the first being 0
    PARTS = 12  # where the parts of x begin
    LEVELS = PARTS + Part.COUNT  # where each level of mipmaps begins, in texels
    COUNT = LEVELS + MIPMAPS


class State:
    """Planes of the field of per-pixel values that have no derivative.

    OFFSET: subtracted from all log-weights.
    REFERENCE: the normalised depth that a softmax's depths are relative to.
    PEAK: subtracted from the exponents of the T-conorm's terms.
    SATURATED: how many fragments have a coverage of exactly 1.
    """

    OFFSET = 0
    REFERENCE = 1
    PEAK = 2
    SATURATED = 3
    COUNT = 4


class Entry:
    """Planes of the field of listed fragments: the pixel's row and column, and the face's number.

    Faces are numbered through the whole batch.
    """

    ROW = 0
    COLUMN = 1
    FACE = 2
    COUNT = 3


class EarlyStop:
    """When a pixel's list of fragments, nearest first, ends early because the rest is hidden.

    PRODUCT: when no more than `Call.hidden` of the light is left.
    NEVER: all fragments are listed.
    LARGEST_TWO: as `PRODUCT`, where coverages combine by `OverDepth`'s "largest_two"; fragments
        that add nothing are not listed at all.
    """

    PRODUCT = 0
    NEVER = 1
    LARGEST_TWO = 2


class Limit:
    """Elements of the small floating-point field that holds the limits of the current call.

    Behind them is the background's depth (softmax) or log-weight, for each batch item.
    """

    NEAR = 0
    FAR = 1
    THRESHOLD = 2
    CUTOFF = 3
    REACH = 4
    HIDDEN = 5
    COUNT = 6
