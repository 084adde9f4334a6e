"""The requests that wait on this replica, and how their turns are used."""
