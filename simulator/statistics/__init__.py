"""Random streams, warm-up, confidence intervals and quantiles."""
