"""The contract: what OpenAPI says of this service."""
