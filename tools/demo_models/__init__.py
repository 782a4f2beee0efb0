"""Training of the models that ship with the package; users do not need it."""
