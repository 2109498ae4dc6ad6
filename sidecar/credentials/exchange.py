"""A token for credentials: decide first, and on ALLOW alone ask STS, for no longer than the token and the decision live."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from sidecar.credentials.cache import CredentialCache, Terms
from sidecar.credentials.sts import LONGEST_CHAINED_SECONDS, StsGateway
from sidecar.credentials.templates import load_templates
from sidecar.engine.decide import MICROSECONDS
from sidecar.errors import (
    CredentialsNotGivenError,
    CredentialsUnavailableError,
    InvalidRequestError,
    UnauthenticatedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from sidecar.credentials.sts import Credentials
    from sidecar.credentials.templates import Templates
    from sidecar.engine.cache import Held
    from sidecar.engine.decide import Decider
    from sidecar.identity import Caller
    from sidecar.identity.tokens import VerifiedToken
    from sidecar.model import Decision, Identity, Item, Question
    from sidecar.settings import CredentialSettings

SHORTEST_SECONDS = 60.0
"""Credentials that would end sooner are not worth a call."""


class Exchange:
    """Exchanges tokens for credentials. ``seconds`` is how long these are good for at the most."""

    def __init__(
        self,
        decider: Decider,
        sts: StsGateway,
        templates: Templates,
        cache: CredentialCache,
        *,
        seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._decider = decider
        self._sts = sts
        self._templates = templates
        self.cache = cache
        self._seconds = seconds
        self._clock = clock

    def exchange(
        self, caller: Caller, question: Question, wanted: float | None, decision_id: str, deadline: float
    ) -> tuple[Held[Decision], Credentials | None]:
        """Decide a question about one resource, and give credentials for it if the decision is ALLOW.

        ``wanted`` is how long they should be good for, in seconds. Raises as ``Decider.decide``, and ``UnauthenticatedError``,
        ``InvalidRequestError``, ``CredentialsUnavailableError`` or ``CredentialsNotGivenError``.
        """
        if wanted is not None and wanted < SHORTEST_SECONDS:
            fault = f"must be at least {SHORTEST_SECONDS:g} s, is {wanted:g} s"
            raise InvalidRequestError(field="duration", fault=fault)
        token = caller.token
        if token is None:
            msg = "credentials are given for a token alone"
            raise UnauthenticatedError(msg, "TOKEN_MISSING")
        identity, (item,) = caller.identity, question.items
        key = _key(token.issuer, identity, item)
        held = self._decider.decide_held(question, decision_id, deadline)
        decision = held.answer
        if decision.effect != "ALLOW":
            self.cache.drop(key)
            return held, None
        # Also where credentials are remembered: what is refused is so whoever asked before.
        self._sts.check(identity, token)
        terms = Terms(
            under=(decision.code, decision.policy_id, decision.rule_id),
            end=self._end(token, decision),
            seconds=min(wanted or self._seconds, self._seconds),
        )

        def make(end: float) -> Credentials:
            return self._make(identity, token, item, decision_id, end)

        return held, self.cache.get(key, terms, make, deadline)

    def _end(self, token: VerifiedToken, decision: Decision) -> float:
        """Tell when the token or the decision ends. Raises ``CredentialsUnavailableError`` if that is too soon."""
        ends = {"token": token.expires_at}
        if decision.valid_until is not None:
            ends["decision"] = decision.valid_until / MICROSECONDS
        first = min(ends, key=lambda name: ends[name])
        left = ends[first] - self._clock()
        if left < SHORTEST_SECONDS:
            msg = f"the {first} ends in {left:.0f} s, and credentials are given for at least {SHORTEST_SECONDS:g} s"
            raise CredentialsUnavailableError(msg)
        return ends[first]

    def _make(self, identity: Identity, token: VerifiedToken, item: Item, decision_id: str, end: float) -> Credentials:
        now = self._clock()
        if end - now > LONGEST_CHAINED_SECONDS and self._sts.chained():
            end = float(int(now + LONGEST_CHAINED_SECONDS))
        # STS gives no session as short as some have to be. AWS itself refuses what comes after the end.
        policy = self._templates.session_policy(
            item.resource.type,
            item.resource.id,
            item.action.name,
            tenant_id=identity.tenant.id,
            tenant_tag=self._sts.tag,
            region=self._sts.region,
            account=self._sts.account,
            partition=self._sts.partition,
            until=datetime.fromtimestamp(end, UTC),
        )
        given = self._sts.assume(identity, token, session_name=decision_id, policy=policy, seconds=end - now)
        if given.expiration - now < SHORTEST_SECONDS:
            msg = (
                f"STS gave credentials that end in {given.expiration - now:.0f} s; is the clock of this machine right?"
            )
            raise CredentialsNotGivenError(msg)
        return msgspec.structs.replace(given, expiration=min(given.expiration, end))


def open_exchange(decider: Decider, settings: CredentialSettings, most: int) -> Exchange:
    """Put an exchange together as the settings say. At most ``most`` calls to STS are under way at a time.

    Raises ``StartError`` or ``SettingsError``.
    """
    cache = CredentialCache(
        entries=settings.cache_entries,
        renew_before=settings.renew_before_seconds,
        most=most,
        timeout=settings.timeout_seconds,
    )
    templates = load_templates(settings.templates)
    return Exchange(decider, StsGateway(settings, most), templates, cache, seconds=settings.duration_seconds)


def _key(issuer: str, identity: Identity, item: Item) -> Hashable:
    """Name what credentials are for, and who asks for them by whose word."""
    subject = identity.subject
    return (
        issuer,
        identity.tenant.id,
        subject.id,
        subject.roles,
        identity.principal.id,
        identity.delegation,
        identity.scopes,
        item.resource.type,
        item.resource.id,
        item.action.name,
    )
