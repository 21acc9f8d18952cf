"""The denoise step on a GPU: attention kernels, blocks compiled as a whole, matrices and attention in fp8."""
