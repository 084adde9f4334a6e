"""An upstream to develop and test against, an embedded Valkey, and the demo that ties both to the gateway.

`upstream.py` is the sandbox upstream and `serving.py` serves it, `valkey.py` runs Valkey, `demo.py` runs all of it.
Nothing here is imported by the gateway, and nothing here imports `service.upstream`: the sandbox checks the signer.
"""
