"""Operation ``keys``: API keys of the service, what tenants may use, and who did what."""

import argparse
import getpass
import json
import re
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from governance.errors import ConfigError
from pipelines import _paths as paths
from pipelines._keys_options import LIMITS
from serving.redaction.policy import parse_policy
from serving.tenants.access import access_ledger
from serving.tenants.desk import USAGE_FILE
from serving.tenants.policy import Limits
from serving.tenants.store import IssuedKey, KeyRecord, KeyStore
from serving.tenants.usage import UsageStore

_DAY_S, _HOUR_S = 86_400.0, 3_600.0


def create(args: argparse.Namespace) -> int:
    """Entry of ``auricle keys create``: the only time that the key is shown."""
    store = _store(args, create=True)
    issued = store.create(
        args.tenant,
        [scope.strip() for scope in args.scopes.split(",") if scope.strip()],
        name=args.name,
        lifetime_s=_positive("--days", args.days, _DAY_S),
    )
    _record(args, "key_created", issued.record)
    return _show_issued(issued, store, as_json=args.json)


def rotate(args: argparse.Namespace) -> int:
    """Entry of ``auricle keys rotate``: a successor; the old key works a while longer."""
    store = _store(args)
    overlap_s = _positive("--overlap-hours", args.overlap_hours or None, _HOUR_S) or 0.0
    lifetime_s = _positive("--days", args.days, _DAY_S)
    issued = store.rotate(args.id, overlap_s=overlap_s, lifetime_s=lifetime_s)
    _record(args, "key_rotated", issued.record)
    return _show_issued(issued, store, as_json=args.json)


def revoke(args: argparse.Namespace) -> int:
    """Entry of ``auricle keys revoke``: the key and its tokens are refused from their next use."""
    store = _store(args)
    record = store.revoke(args.id)
    _record(args, "key_revoked", record)
    if args.json:
        sys.stdout.write(json.dumps(_plain(record, store.now())) + "\n")
    else:
        sys.stdout.write(f"{record.id} of {record.tenant} is revoked\n")
    return 0


def list_keys(args: argparse.Namespace) -> int:
    """Entry of ``auricle keys list``: every key that ever was, without its secret."""
    store = _store(args)
    for record in store.records():
        row = _plain(record, store.now())
        if args.json:
            sys.stdout.write(json.dumps(row) + "\n")
        else:
            scopes = ",".join(row["scopes"])
            until = row["expires_at"] or "never expires"
            sys.stdout.write(
                f"{record.id}  {row['state']:7}  {record.tenant:16} {scopes:28} {until}  {record.name}\n"
            )
    return 0


def tenant(args: argparse.Namespace) -> int:
    """Entry of ``auricle keys tenant``: show what a tenant may use and hides, or change it."""
    store = _store(args)
    policy = store.tenant(args.tenant)
    changed = replace(policy, limits=_limits(args, policy.limits))
    if args.redact is not None:
        hidden = "" if args.redact == "none" else args.redact
        parse_policy([hidden])  # refuses what nothing can find
        changed = replace(changed, redact=hidden)
    if args.redact_mode is not None:
        changed = replace(changed, redact_mode=args.redact_mode)
    if changed != policy:
        store.set_tenant(args.tenant, changed)
    sys.stdout.write(json.dumps({"tenant": args.tenant, **changed.plain()}) + "\n")
    return 0


def usage(args: argparse.Namespace) -> int:
    """Entry of ``auricle keys usage``: requests and audio seconds of a tenant, by day and route."""
    store = UsageStore(_folder(args) / USAGE_FILE)
    for row in store.rows(args.tenant, first_day=args.since or "0000", last_day="9999"):
        if args.json:
            sys.stdout.write(json.dumps({"tenant": args.tenant, **asdict(row)}) + "\n")
        else:
            sys.stdout.write(
                f"{row.day}  {row.route:16} {row.requests:8} requests  {row.audio_s:12.1f} s of audio\n"
            )
    return 0


def access(args: argparse.Namespace) -> int:
    """Entry of ``auricle keys access``: verify the access log, then print its newest events."""
    ledger = access_ledger(_folder(args), _month(args.month))
    report = ledger.verify()
    if not report.ok:
        sys.stdout.write(
            f"access log: TAMPERED, {report.reason}. Mend: restore it from its backup\n"
        )
        return 2
    for event in ledger.events()[-args.last :]:
        if args.json:
            sys.stdout.write(json.dumps(asdict(event)) + "\n")
        else:
            body = " ".join(f"{name}={value}" for name, value in event.body.items() if value)
            sys.stdout.write(f"{event.seq:6} {event.at} {event.actor:12} {event.kind:12} {body}\n")
    return 0


def _month(text: str) -> str:
    if text and not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text):
        raise ConfigError("must be a month such as 2026-11", item="--month")
    return text


def _folder(args: argparse.Namespace) -> Path:
    """Where the key store lies: the workspace's, or the one that is named."""
    return Path(args.store).parent if args.store else paths.API_KEYS.parent


def _store(args: argparse.Namespace, *, create: bool = False) -> KeyStore:
    return KeyStore(Path(args.store) if args.store else paths.API_KEYS, create=create)


def _record(args: argparse.Namespace, kind: str, record: KeyRecord) -> None:
    """A change of keys is an event of the access log, like every use of one."""
    body = {"tenant": record.tenant, "key": record.id, "scopes": sorted(record.scopes)}
    access_ledger(_folder(args)).append(kind, body, actor=getpass.getuser())


def _show_issued(issued: IssuedKey, store: KeyStore, *, as_json: bool) -> int:
    row = _plain(issued.record, store.now()) | {"key": issued.text}
    if as_json:
        sys.stdout.write(json.dumps(row) + "\n")
        return 0
    until = row["expires_at"] or "it never expires"
    sys.stdout.write(
        f"{issued.text}\n\n"
        f"tenant {issued.record.tenant}, scopes {', '.join(row['scopes'])}, until: {until}\n"
        "This is the only time that the key is shown: only a hash of it is kept.\n"
    )
    return 0


def _plain(record: KeyRecord, now: float) -> dict[str, Any]:
    return {
        "id": record.id,
        "tenant": record.tenant,
        "name": record.name,
        "state": record.state(now),
        "scopes": sorted(record.scopes),
        "created_at": _shown(record.created_at),
        "expires_at": _shown(record.expires_at),
        "revoked_at": _shown(record.revoked_at),
        "rotated_from": record.rotated_from,
        "near": record.near,
    }


def _shown(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _positive(option: str, value: float | None, unit_s: float) -> float | None:
    if value is None:
        return None
    if not 0 < value < 100_000:
        raise ConfigError(f"{value:g} is not above 0", item=option)
    return value * unit_s


def _limits(args: argparse.Namespace, limits: Limits) -> Limits:
    """``limits`` with what was given; 0 takes a limit away."""
    given = {
        field: (getattr(args, option) or None)
        for option, field in LIMITS.items()
        if getattr(args, option) is not None
    }
    return replace(limits, **given)
