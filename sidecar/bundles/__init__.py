"""Bundles: the registry compiled for OPA (``compile``), and the file that holds it together with the Rego (``bundle``)."""
