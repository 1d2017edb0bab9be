"""What the paper and its author's notebooks report: the figures that this study is held against, in percent."""

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

HEADLINES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "mnist": ((0.9, 95.6, 93.4),),
    "fashion-mnist": ((0.7, 84.8, 83.4), (0.9, 78.5, 61.0)),
}
"""Data set -> (sparsity, CQP, magnitude). The 90 % of Fashion-MNIST are of the author's earlier run."""

NOTEBOOK_MAGNITUDE = {
    "mnist": (98.2, 98.3, 98.3, 98.2, 98.3, 98.1, 98.0, 97.0, 91.8),
    "fashion-mnist": (89.4, 89.5, 89.5, 89.4, 89.1, 88.5, 86.8, 81.9, 63.0),
}
"""Weights of largest magnitude, one shot."""

NOTEBOOK_CQP = {
    "mnist": (10, (98.1, 98.1, 98.0, 98.0, 97.9, 97.4, 95.3, 90.6, 73.5)),
    "fashion-mnist": (-1, (88.6, 88.9, 87.7, 86.5, 85.2, 84.0, 84.5, 79.9, 77.7)),
}
"""(batches of fine-tuning a round, columns by CQP); on MNIST with alpha = 1."""


FORM = {"mnist": ("unstructured", 10), "fashion-mnist": ("column", -1)}
"""Pattern and batches a round that the headlines are held against: on MNIST the abstract's figures lie far above the notebook's
columns, so weights, with the notebook's budget; on Fashion-MNIST the notebook's own form."""

ALPHA = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0), (81.3, 85.2, 85.9, 84.6, 83.3, 81.4, 77.8)
"""Columns of Fashion-MNIST at 70 %: exponents and accuracies."""

QP_CLIFF = (98.1, 95.1, 90.5, 86.3, 76.2, 53.6, 40.7, 23.9, 8.6)
"""MNIST, the quadratic program at 70 %, threshold 0.1 to 0.9."""

CONSTRAINT_CLIFF = (89.3, 88.3, 84.8, 73.4, 65.9, 55.8, 47.5, 48.2, 46.6, 45.0)
"""Fashion-MNIST, the hard constraint at 70 %, threshold 0.1 to 1."""
