"""The context in force: whose request is being worked on, in every task and thread, and never another's."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from rich.pretty import pretty_repr

from sidecar.identity.tokens import VerifiedToken
from sidecar.model import Actor, Identity, Principal, Subject, Tenant
from sidecar.tenancy import NoTenantError, TenantContext, current, use

A = TenantContext("Tenant-A", subject_id="alice", token="secret-a")
B = TenantContext("Tenant-B", subject_id="bob", token="secret-b")


def test_outside_of_a_request_there_is_no_tenant_and_the_error_says_what_to_do() -> None:
    with pytest.raises(NoTenantError, match=r"Put TenantMiddleware around .* `with use\(context\):`"):
        current()


def test_a_context_is_in_force_for_a_while() -> None:
    with use(A):
        assert current() is A
    with pytest.raises(NoTenantError):
        current()


def test_a_context_ends_when_the_work_fails_too() -> None:
    with suppress(ZeroDivisionError), use(A):
        _ = 1 / 0
    with pytest.raises(NoTenantError):
        current()


def test_within_a_context_another_may_be_in_force_and_then_the_first_is_again() -> None:
    with use(A):
        with use(B):
            assert current() is B
        assert current() is A


def test_work_that_is_no_tenants_is_done_without_one() -> None:
    with use(A), use(None), pytest.raises(NoTenantError):
        current()


def test_tasks_that_run_at_the_same_time_each_have_their_own() -> None:
    async def request(context: TenantContext) -> set[str]:
        seen = set()
        with use(context):
            for _ in range(50):
                await asyncio.sleep(0)
                seen.add(current().tenant_id)
                seen.add(await asyncio.to_thread(lambda: current().tenant_id))
        return seen

    async def many() -> list[set[str]]:
        return await asyncio.gather(*[request(TenantContext(f"Tenant-{number}")) for number in range(20)])

    assert asyncio.run(many()) == [{f"Tenant-{number}"} for number in range(20)]


def test_a_task_that_a_request_starts_is_still_of_its_tenant_when_the_request_has_ended() -> None:
    async def main() -> str:
        ended = asyncio.Event()

        async def afterwards() -> str:
            await ended.wait()
            return current().tenant_id

        with use(A):
            task = asyncio.create_task(afterwards())
        ended.set()
        return await task

    assert asyncio.run(main()) == "Tenant-A"


def test_a_thread_has_the_context_that_it_is_handed_and_no_other() -> None:
    with ThreadPoolExecutor(1) as executor:
        with use(A):
            handed = executor.submit(contextvars.copy_context().run, current)
            not_handed = executor.submit(current)
        assert handed.result() is A
        with pytest.raises(NoTenantError):
            not_handed.result()


@pytest.mark.parametrize("show", [repr, str, pretty_repr], ids=["repr", "str", "rich"])
def test_a_context_does_not_show_its_token(show: object) -> None:
    assert callable(show)
    shown = show(A)

    assert "Tenant-A" in shown
    assert "secret" not in shown


@pytest.mark.parametrize("tenant", ["", "a\nb", "x" * 513], ids=["empty", "a line break", "too long"])
def test_a_tenant_that_cannot_be_one_is_refused(tenant: str) -> None:
    with pytest.raises(ValueError, match="tenant_id: must"):
        TenantContext(tenant)


def test_the_context_of_a_token_says_what_the_token_says() -> None:
    identity = Identity(
        Tenant("Tenant-A"),
        Principal("agent:order-bot"),
        Subject("alice", roles=("support",)),
        (Actor("agent:planner", ("tools:read",)),),
        ("tools:read",),
    )
    context = TenantContext.of(VerifiedToken("text", "https://issuer.example", "id", identity, 0.0, {}))

    assert context == TenantContext(
        "Tenant-A",
        subject_id="alice",
        principal_id="agent:order-bot",
        roles=("support",),
        scopes=("tools:read",),
        delegation=(Actor("agent:planner", ("tools:read",)),),
        token="text",
    )
