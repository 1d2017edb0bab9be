"""What a model is to us: its synaptic layers, its neurons, and a forward over all timesteps."""
