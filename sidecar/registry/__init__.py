"""The registry in DynamoDB: what its items mean (``items``), how exports hold them, what is odd in them (``lint``)."""
