"""Training a network, and fitting a surface."""
