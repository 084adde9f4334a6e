"""Who a request comes from: keys, tokens of Kubernetes service accounts, and the table of what each caller may do."""
