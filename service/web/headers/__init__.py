"""Header fields, one file for each subject."""
