"""Who waits on this replica, and how their turns are used."""
