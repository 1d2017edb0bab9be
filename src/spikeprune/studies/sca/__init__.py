"""The study of SCA: channels pruned and regrown by activity, against other ways to choose channels, and what is left after shrink.

Li, Xu, Shen, Xu, Chen, Pan. Towards Efficient Deep Spiking Neural Networks Construction with Spiking Activity based Pruning. ICML 2024.
"""
