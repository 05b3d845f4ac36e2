"""What the lecture claims of networks, measured: on a model at hand, or on the data at hand."""
