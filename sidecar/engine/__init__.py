"""The engine around OPA: ``decide`` asks it and guards the answer, ``opa`` talks to it, ``process`` runs it."""
