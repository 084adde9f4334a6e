"""The origin of a request: keys, Kubernetes service account tokens, and the table of each caller's permissions."""
