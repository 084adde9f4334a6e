"""Redis or Valkey: single server, Sentinel or Cluster. The only package that imports redis."""
