"""The VAE in half the bits and without needless copies, and what of an encoding need not be computed twice."""
