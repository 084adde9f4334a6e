"""Who asks: keys, tokens of Kubernetes service accounts, and the table of what each caller may do."""
