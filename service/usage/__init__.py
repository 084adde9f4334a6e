"""Usage per caller, by minute and by hour."""
