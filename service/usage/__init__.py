"""Who used what, by minute and by hour."""
