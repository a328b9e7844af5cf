"""`ec2 launch`: plan, price guard, question, then key pair, security group and machine; whatever goes wrong, nothing
that is billed is left unseen.

From the first create on, a failure, Ctrl-C or SIGTERM ends all that this launch made, and says what could not be.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from builder.deploy.signals import Interrupts, interrupts
from builder.ec2 import kill_timer
from builder.ec2.cleanup import PENDING, clean_up
from builder.ec2.make import Attempt, deadline_of, instance_request, make_group, make_key, run_instance
from builder.ec2.plan import LaunchPlan, LaunchWishes, make_plan
from builder.ec2.resources import LOOKS_S, OVER_STATES, YOUNG_S, Ended, Found, find_instance, local_files
from builder.ec2.terminate import RECORD, Target, end_command, end_name, forget
from builder.errors import BuilderError, ConflictError
from builder.instants import unix_s_of
from builder.state import iso_time

if TYPE_CHECKING:
    from builder.aws.session import Aws
    from builder.runtime import Runtime

__all__ = ["launch", "show_launched", "show_plan"]


def launch(run: Runtime, wishes: LaunchWishes) -> dict[str, Any]:
    """Launch a machine; returns the document for --json. Raises what stopped it, saying what became of it all."""
    from builder.aws.session import Aws

    with interrupts(run.console.note) as signals, _alone(run, is_dry=wishes.dry_run):
        _check_records(run, is_dry=wishes.dry_run)
        aws = Aws(run, wishes.region)
        over = _recorded_and_over(run, is_dry=wishes.dry_run)
        plan = make_plan(run, aws, wishes)
        if not run.console.as_json:
            show_plan(run, plan)
        if wishes.dry_run:
            return _dry_document(plan)
        run.console.confirm(_question(plan), yes=wishes.yes)
        if over is not None:
            _tidy(run, over)
        return _carry_out(run, aws, plan, wishes, signals)


@contextmanager
def _alone(run: Runtime, *, is_dry: bool) -> Iterator[None]:
    """One launch at a time in a folder: a second one would write its record over the first one's.

    Raises ConflictError. A launch that cannot even make the lock's file goes on: it fails at its next file, or none.
    """
    try:
        import fcntl
    except ImportError:
        # No such locks on this system: two at once are the user's business.
        is_dry = True
    if is_dry:
        yield
        return
    path = run.state.folder / "ec2.lock"
    descriptor = None
    try:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if descriptor is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConflictError(
                    "another ec2 launch is at work in this folder",
                    hint="wait for it, then see: python -m builder ec2 status",
                ) from None
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _check_records(run: Runtime, *, is_dry: bool) -> None:
    """Warn of what earlier launches may have left. Raises ConflictError if a record of theirs cannot be read."""
    for name in (RECORD, PENDING):
        if run.state.is_damaged(name):
            path = run.state.folder / f"{name}.json"
            error = ConflictError(
                f"{path} is damaged: what an earlier launch left is not known, and may be billed",
                hint=f"end it: python -m builder ec2 terminate --all-mine; then remove {path}",
            )
            if not is_dry:
                raise error
            run.console.warn(f"{error}; {error.hint}")
    if pending := run.state.pending(PENDING):
        commands = "; ".join(end_command(name) for name in pending)
        run.console.warn(f"an earlier launch may have left {', '.join(pending)}: {commands}")


def _recorded_and_over(run: Runtime, *, is_dry: bool) -> Target | None:
    """The recorded launch, if its machine is over. Raises ConflictError if it is not, and what AWS raises."""
    from builder.aws.session import Aws

    record = run.state.read(RECORD)
    if record is None:
        return None
    machine_id, name = str(record.get("instance_id") or ""), str(record.get("name") or "")
    region = str(record.get("region") or run.settings.aws_region)
    machine = find_instance(Aws(run, region), machine_id) if machine_id else None
    created_s = unix_s_of(str(record.get("created_at") or ""))
    is_young = machine is None and created_s is not None and run.clock.unix_s() - created_s < YOUNG_S
    if not is_young and (machine is None or machine.state in OVER_STATES):
        group_id = str(record.get("security_group_id") or "") or None
        return Target(name, region, machine_id or None, group_id, has_key=True)
    error = ConflictError(
        f"machine {machine_id} ({name}) is there, {'pending' if machine is None else machine.state}",
        hint=f"use it: python -m builder ec2 wait; or end it: {end_command(name)}",
    )
    if not is_dry:
        raise error
    run.console.warn(f"{error}; {error.hint}")
    return None


def _tidy(run: Runtime, over: Target) -> None:
    """Remove what a machine that ended by itself left."""
    from builder.aws.session import Aws

    run.console.note(f"the machine of {over.name} is over: removing what it left")
    ended = end_name(run, Aws(run, over.region), over)
    if ended.left:
        raise _first_left(ended, f"what {over.name} left could not be removed", end_command(over.name))
    forget(run, over.name)


def _first_left(ended: Ended, text: str, command: str) -> BuilderError:
    first = next(iter(ended.left.values()))
    return type(first)(f"{text}: {first}", hint=f"again: {command}", status=first.status, request_id=first.request_id)


def _dry_document(plan: LaunchPlan) -> dict[str, Any]:
    attempt = Attempt(plan.name, plan.region, "(made at launch)", "(made at launch)", group_id="(made at launch)")
    request = instance_request(plan, attempt)
    would: list[dict[str, Any]] = [
        {"operation": "CreateKeyPair", "params": {"KeyName": plan.name}},
        {"operation": "CreateSecurityGroup", "params": {"GroupName": plan.name}},
        {"operation": "AuthorizeSecurityGroupIngress", "params": {"open_to": plan.network, "ports": list(plan.ports)}},
        {"operation": "RunInstances", "params": request},
    ]
    return {"plan": plan.document(), "would": would}


def _question(plan: LaunchPlan) -> str:
    cost = "at a price that is not known" if plan.per_h is None else f"at about ${plan.per_h:.2f}/h"
    most = "" if plan.worst_case is None else f", at most about ${plan.worst_case:.2f}"
    return f"Launch {plan.instance_type} in {plan.region} {cost}{most} in {plan.minutes} min?"


def _carry_out(run: Runtime, aws: Aws, plan: LaunchPlan, wishes: LaunchWishes, signals: Interrupts) -> dict[str, Any]:
    attempt = Attempt(plan.name, plan.region, secrets.token_hex(8))
    try:
        run.state.begin_pending(plan.name, run.clock.unix_s(), PENDING)
        machine = _make_all(run, aws, plan, attempt)
        record = _record(run, plan, attempt, machine)
        run.state.end_pending(plan.name, PENDING)
        if wishes.has_outside_timer:
            record["outside_timer"] = kill_timer.start(run, plan.name, attempt.deadline)
        record["public_ip"] = _address(run, aws, machine.id)
        run.state.write(RECORD, record)
    except BaseException as error:
        signals.is_cleaning = True
        final = clean_up(run, aws, attempt, error, plan)
        if final is None:
            raise
        raise final from None
    return {"machine": record, "plan": plan.document()}


def _make_all(run: Runtime, aws: Aws, plan: LaunchPlan, attempt: Attempt) -> Found:
    key_path = local_files(run, plan.name)[0]
    with run.console.task(f"launching {plan.name}") as task:
        attempt.deadline = deadline_of(run, plan)
        task.update("key pair")
        make_key(run, aws, plan, attempt, key_path)
        task.update("security group")
        make_group(run, aws, plan, attempt)
        task.update(f"machine {plan.instance_type}")
        # Now, and not earlier: what went before may have taken its time.
        attempt.deadline = deadline_of(run, plan)
        return run_instance(run, aws, plan, attempt)


def _record(run: Runtime, plan: LaunchPlan, attempt: Attempt, machine: Found) -> dict[str, Any]:
    key_path, hosts_path, _ = local_files(run, plan.name)
    record = {
        "instance_id": machine.id,
        "name": plan.name,
        "instance_type": plan.instance_type,
        "region": plan.region,
        "public_ip": None,
        "key_name": plan.name,
        "key_path": str(key_path.resolve()),
        "known_hosts_path": str(hosts_path.resolve()),
        "ssh_user": plan.image.ssh_user,
        "security_group_id": attempt.group_id,
        "created_at": iso_time(run.clock.unix_s()),
        "deadline": attempt.deadline,
        "is_spot": plan.is_spot,
        "price_per_h": plan.per_h,
        "auto_terminate_minutes": plan.minutes,
        "builder_id": attempt.builder_id,
    }
    run.state.write(RECORD, record)
    run.state.event(
        run.clock.unix_s(),
        "created",
        "ec2",
        machine.id,
        provider="aws",
        name=plan.name,
        instance_type=plan.instance_type,
        region=plan.region,
        cost_per_hour=plan.per_h,
        is_spot=plan.is_spot,
        deadline=attempt.deadline,
    )
    return record


def _address(run: Runtime, aws: Aws, machine_id: str) -> str | None:
    """The public address, if AWS tells it soon; it is no reason to give up a machine that runs."""
    for pause_s in (0.0, *LOOKS_S):
        if pause_s:
            run.clock.sleep(pause_s)
        with suppress(BuilderError):
            machine = find_instance(aws, machine_id)
            if machine is not None and machine.raw.get("PublicIpAddress"):
                return str(machine.raw["PublicIpAddress"])
    return None


# For people


def show_plan(run: Runtime, plan: LaunchPlan) -> None:
    """The plan, on stderr: it is no result."""
    note = run.console.note
    cost = "not known" if plan.price.per_h is None else f"${plan.price.per_h:.3f}/h"
    note(f"machine   {plan.instance_type} in {plan.region}{', spot' if plan.is_spot else ''}, {plan.disk_gb} GB disk")
    note(f"image     {plan.image.id} {plan.image.name}")
    note(f"open to   {plan.network}, ports {', '.join(str(port) for port in plan.ports)}")
    note(f"price     {cost} ({plan.price.source}), ${plan.extras_per_h:.3f}/h for disk and address")
    if plan.worst_case is not None:
        note(f"at most   about ${plan.worst_case:.2f} in {plan.minutes} min, without traffic and tax")
    note(f"end       {plan.how_it_ends}")


def show_launched(run: Runtime, document: dict[str, Any]) -> None:
    """The outcome."""
    if "machine" not in document:
        run.console.line("Nothing was made. To launch it, leave --dry-run out.")
        return
    record = document["machine"]
    run.console.line(
        f"Launched {record['instance_id']} ({record['name']}), address {record['public_ip'] or 'to come'}."
    )
    price = record["price_per_h"]
    cost = "at a price that is not known" if price is None else f"at about ${price:.2f}/h"
    run.console.line(f"It is billed {cost} and ends by itself at {record['deadline']}.")
    run.console.line("Next: python -m builder ec2 wait")
