"""Redis or Valkey, as one server, Sentinel or Cluster: the one package that imports redis."""
