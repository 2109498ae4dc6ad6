"""From an ALLOW to AWS credentials that reach one tenant's data only."""
