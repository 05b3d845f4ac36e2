"""Run a network with the compiled kernels: find them, lay out memory, walk a flat list of calls."""
