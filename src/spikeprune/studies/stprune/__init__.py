"""The study of STPrune: widths by principal components, fewer timesteps, fewer bits, one after the other, and what each is worth.

Chowdhury, Garg, Roy. Spatio-Temporal Pruning and Quantization for Low-latency Spiking Neural Networks. IJCNN 2021.
"""
