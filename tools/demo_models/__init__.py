"""How the models that ship with the package were made; no user needs it."""
