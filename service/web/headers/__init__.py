"""Parsers and writers of header fields, one file per subject."""
