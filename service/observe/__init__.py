"""The record of a request, for logs and metrics."""
