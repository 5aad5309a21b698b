def measure(x, data, label, resamples=200, seed=0):
    return {}
