"""Outer-gradient estimators, one a file, all with the same signature."""

from meta.estimators.es import es_gradient
from meta.estimators.exact import exact_gradient
from meta.estimators.first_order import first_order_gradient
from meta.estimators.online import OnlineRun, learn_online, online_gradient
from meta.estimators.pes import pes_gradient
from meta.estimators.truncated import truncated_gradient

ESTIMATORS = {
    estimator.name: estimator
    for estimator in (
        exact_gradient,
        truncated_gradient,
        first_order_gradient,
        online_gradient,
        es_gradient,
        pes_gradient,
    )
}
"""Every estimator by name."""

__all__ = [
    "ESTIMATORS",
    "OnlineRun",
    "es_gradient",
    "exact_gradient",
    "first_order_gradient",
    "learn_online",
    "online_gradient",
    "pes_gradient",
    "truncated_gradient",
]
