"""Outer-gradient estimators: one function a file, one signature, each naming its outer losses."""

from meta.estimators.es import es_gradient
from meta.estimators.exact import exact_gradient
from meta.estimators.first_order import first_order_gradient

ESTIMATORS = {
    estimator.name: estimator for estimator in (exact_gradient, first_order_gradient, es_gradient)
}
"""Every estimator by name."""

__all__ = ["ESTIMATORS", "es_gradient", "exact_gradient", "first_order_gradient"]
