"""tenantgate: the authorization sidecar for multi-tenant AI agents.

Two wings share one model and meet in the bundle:

- the data plane answers callers: ``doors`` translate, ``engine`` decides by asking OPA, ``identity`` says who calls;
- the control plane makes what OPA decides by: ``registry`` reads DynamoDB, ``bundles`` compiles.
"""
