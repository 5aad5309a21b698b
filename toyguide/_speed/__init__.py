"""What only makes fields and training faster: compiled loops, reused buffers, shared noise levels, CUDA graphs."""
