"""What a launch is looked up by keeps its hash, in this process alone."""

import pickle
from dataclasses import replace

from taichi_raster.runtime.variant import DepthVariant, EdgeVariant, Variant


def test_a_variant_keeps_its_hash_and_leaves_it_out_of_pickles() -> None:
    one = Variant(EdgeVariant("logistic"), DepthVariant("none"))
    other = Variant(EdgeVariant("logistic"), DepthVariant("none"))
    assert hash(one) == hash(one) == hash(other) and one == other
    assert "_hash" in vars(one)
    read = pickle.loads(pickle.dumps(one))
    assert "_hash" not in vars(read) and read == one and hash(read) == hash(one)
    changed = replace(one, cull=True)
    assert changed != one and hash(changed) != hash(one)
