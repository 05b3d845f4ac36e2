"""Models of other programs: their weights and graphs in, ours out."""
