"""Problems (RFC 9457): their types, from which errors they come, and the handlers that send them."""
