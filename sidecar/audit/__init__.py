"""The decision log: one record of every decision, and of every error in place of one, for who must account for it."""
