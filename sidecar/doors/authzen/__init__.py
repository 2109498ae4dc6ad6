"""The door for enforcement points that speak the AuthZEN Authorization API 1.0, over HTTP.

The specification is https://openid.net/specs/authorization-api-1_0.html. ``requests`` reads what a body asks, ``callers`` says
who asks it, ``search`` turns the pages of a search, ``answers`` writes decisions, ``description`` tells machines what there is,
and ``application`` puts them in order.
"""
