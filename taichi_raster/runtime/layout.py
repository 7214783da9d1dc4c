"""How one call's inputs lie in the flat vector x, and its sums in the flat vector y.

x is, one part after the other (see `Part`): face vertices (B, F, 3, 3); attributes at face corners
(B, F, 3, D); texture coordinates at face corners (B, F, 3, 2); texels; the edge network's weights
(B, P); the depth network's weights (B, Q); and the other parameters (B, len(Slot)). Every batch
item has its own parameters, so that threads do not contend for them and a sum over items has a
fixed order. y is (2 + C, B, H, W): the T-conorm's sum, the colour weight, and the weighted
attributes.
"""

SHIFT = 3
TILE = 1 << SHIFT  # pixels on a side
RUNS = 64  # runs that the CPU's parallel loops are cut into, one for each batch item at least
GROUP = 8  # tiles on a side of a group


class Slot:
    """Places among an item's parameters."""

    SCALE = 0
    SHAPE = 1
    SHIFT = 2
    P = 3
    GAMMA = 4
    DEPTH_SHAPE = 5
    DEPTH_SHIFT = 6
    COUNT = 7


class Part:
    """The parts of x, in order."""

    VERTICES = 0
    CORNERS = 1
    UV = 2
    TEXELS = 3
    EDGE_WEIGHTS = 4
    DEPTH_WEIGHTS = 5
    PARAMETERS = 6
    COUNT = 7


class Dim:
    """Places in the small integer field that tells the kernels the sizes of the call at hand."""

    BATCH = 0
    FACES = 1
    HEIGHT = 2
    WIDTH = 3
    TILES_X = 4
    TILES = 5  # in one image
    RUN_LENGTH = 6  # pixels that one thread does in order
    TEXTURE_HEIGHT = 7
    TEXTURE_WIDTH = 8
    TEXTURE_STRIDE = 9  # elements from one batch item's texture to the next; 0 if shared
    GROUPS = 10  # in one image
    GROUPS_X = 11
    PIXELS = 12  # in the whole batch
    PARTS = 13  # where the parts of x begin


class State:
    """Planes of the field that keeps, for each pixel, what must not be differentiated.

    OFFSET is what was subtracted from all log-weights; REFERENCE the normalised depth that a
    softmax's depths were taken relative to; PEAK what was subtracted from the exponents of the
    T-conorm's terms; SATURATED the number of fragments with coverage exactly 1.
    """

    OFFSET = 0
    REFERENCE = 1
    PEAK = 2
    SATURATED = 3
    COUNT = 4


class Entry:
    """Planes of the field of listed pairs: the pixel's row and column, and the face's number in the
    whole batch."""

    ROW = 0
    COLUMN = 1
    FACE = 2
    COUNT = 3


class EarlyStop:
    """When what is in front hides the rest of a pixel's fragments: SUM, when the coverages of front
    faces, or of back faces, add up to 1 (the sharp reference); PRODUCT, when less than the
    threshold passes through all of them; NOTHING: never."""

    SUM = 0
    PRODUCT = 1
    NEVER = 2


class Limit:
    """Places in the small floating-point field beside it; behind them lies, for each batch item,
    the background's depth (softmax) or log-weight."""

    NEAR = 0
    FAR = 1
    THRESHOLD = 2
    CUTOFF = 3
    REACH = 4
    COUNT = 5
