"""The contract: the OpenAPI description of this service."""
