"""The door for Envoy: ``envoy.service.auth.v3.Authorization``, which the filter ``ext_authz`` calls before a request goes on.

``requests`` reads what Envoy hands over, ``responses`` writes what it is told, and ``servicer`` decides in between. Every failure
on the way is a denial, with a status of HTTP that says which. What a message of MCP asks for is said by the table of the door for
AgentCore.
"""
