"""SLAMP measured: Wang, Ye, Ouyang, Spiking Layer-Adaptive Magnitude-based Pruning, 2026, arXiv:2603.14946.

The abstract states the idea and no number, so the study asks what the idea is worth: every allocation at the same budget,
every reading of the gain, and controls that take the gain apart.
"""
