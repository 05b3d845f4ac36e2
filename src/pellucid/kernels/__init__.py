"""The compiled kernels, written in Halide. Build time only: nothing that runs imports this package."""
