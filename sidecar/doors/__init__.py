"""Front doors: each translates its own protocol to a question, asks the engine, and translates the answer back."""
