"""The registry in DynamoDB: what its items mean (``items``), how exports hold them (``exports``), what is odd in them (``lint``)."""
