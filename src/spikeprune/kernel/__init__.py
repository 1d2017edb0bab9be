"""The mathematics of pruning. Tensors and numbers only: no model, no framework, no file."""
