"""The study of SpikeNM: N:M masks learned from scratch, against other ways to come by them, all in the same training.

Ye, Yu, Zhang, Kong, Wu, Jiang, Tao. Sparse by Rule: Probability-Based N:M Pruning for Spiking Neural Networks. 2025.
"""
