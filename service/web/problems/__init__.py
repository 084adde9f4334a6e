"""Problems (RFC 9457): their types, the mapping from errors, and the exception handlers that return them."""
