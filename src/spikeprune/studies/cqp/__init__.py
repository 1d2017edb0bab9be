"""The claims of the CQP paper, reproduced or refuted.

Muhammad Hamza. Criticality-Constrained Iterative Pruning for Energy-Efficient Spiking Neural Networks via Combined
Importance Scoring. 2026. arXiv:2606.30676
"""
