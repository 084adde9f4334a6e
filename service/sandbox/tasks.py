"""The sandbox's tasks: generated from a seed, moving from pending through dispatching to dispatched with the clock."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import msgspec

DAY_S = 86_400
SPREAD_S = 60 * DAY_S
MOMENT = "%Y-%m-%d %H:%M:%S"

TOPICS = (
    ("Spring sale", "Up to 40% off until Sunday"),
    ("Your order is on its way", "Track the parcel in the app"),
    ("Match tonight", "Kick-off at eight, lineups are out"),
    ("Weekly digest", "What you missed since Monday"),
    ("Price alert", "A stock on your list has moved by 5%"),
    ("Maintenance window", "The service will be away for ten minutes"),
    ("New episode", "The story goes on: watch it now"),
    ("Weather warning", "Heavy rain expected in your region"),
    ("Invoice ready", "Your statement for last month is here"),
    ("限时优惠", "全场商品满 300 减 50"),
    ("Früher Vogel", "Tickets für das Fest ab heute"),
    ("Rate your ride", "It takes ten seconds and helps the driver"),
)
TAGS = ("Stock A", "Stock B", "vip", "beta", "region:eu", "region:apac", "lang:de")
DISPATCH_ERRORS = ("no valid device token", "tag condition matches no user", "push certificate has expired")


class SandboxTask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task. Times are in seconds since the epoch; it is dispatching for `dispatch_s`; `error` makes it fail."""

    id: int
    created_s: int
    scheduled_s: int
    title: str
    description: str
    type: str = "All"
    dispatch_s: float = 5.0
    error: str = ""
    content: msgspec.Raw = msgspec.Raw(b'{"From_Account":"administrator","MsgRandom":1}')


class TaskInfo(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One task as the upstream's page writes it."""

    task_id: int = msgspec.field(name="TaskID")
    sdkappid: int
    create_at: str
    type: str
    sched_at: str
    content: msgspec.Raw
    title: str
    desc: str
    status: Literal["pending", "dispatching", "dispatched"]
    dispatch_success: int
    dispatch_err: str
    push_task_id: str = msgspec.field(name="PushTaskID")


def moment(epoch_s: float) -> str:
    """Format seconds since the epoch as the upstream does: UTC, `YYYY-MM-DD HH:MM:SS`."""
    return datetime.fromtimestamp(int(epoch_s), tz=UTC).strftime(MOMENT)


def status_at(task: SandboxTask, now_s: float) -> Literal["pending", "dispatching", "dispatched"]:
    """Return the task's status at `now_s`. Nothing is stored: the clock alone decides."""
    if now_s < task.scheduled_s:
        return "pending"
    return "dispatching" if now_s < task.scheduled_s + task.dispatch_s else "dispatched"


def info_at(task: SandboxTask, *, sdkappid: int, now_s: float) -> TaskInfo:
    """Return the task as it is listed at `now_s`."""
    status = status_at(task, now_s)
    done = status == "dispatched"
    success = done and not task.error
    return TaskInfo(
        task_id=task.id,
        sdkappid=sdkappid,
        create_at=moment(task.created_s),
        type=task.type,
        sched_at=moment(task.scheduled_s),
        content=task.content,
        title=task.title,
        desc=task.description,
        status=status,
        dispatch_success=int(success),
        dispatch_err=task.error if done else "",
        push_task_id=f"{task.id:08x}_{sdkappid:08x}_{task.created_s:016x}_{task.scheduled_s:08x}" if success else "",
    )


def generate_tasks(*, seed: int, sdkappid: int, start_s: int) -> Iterator[SandboxTask]:
    """Generate endless tasks, the same for the same seed, app and start; scheduled within 60 days of the start."""
    rng = random.Random(f"{seed}:{sdkappid}")  # noqa: S311 repeatable, not secret
    number = 0
    while True:
        number += 1
        scheduled_s = start_s + rng.randrange(-SPREAD_S, SPREAD_S)
        created_s = min(scheduled_s, start_s) - rng.randrange(60, 14 * DAY_S)
        title, description = rng.choice(TOPICS)
        type_ = rng.choices(("All", "Tag", "User"), (5, 3, 2))[0]
        yield SandboxTask(
            id=1_000_000_000 + number,
            created_s=created_s,
            scheduled_s=scheduled_s,
            title=f"{title} #{number}",
            description=description,
            type=type_,
            dispatch_s=float(rng.randrange(2, 30)),
            error=rng.choice(DISPATCH_ERRORS) if rng.random() < 0.04 else "",
            content=_content(rng, type_=type_, title=title, description=description),
        )


def _content(rng: random.Random, *, type_: str, title: str, description: str) -> msgspec.Raw:
    """Return a push's content; pages differ on whether `From_Account` is a string or an integer, so both occur."""
    content: dict[str, object] = {
        "From_Account": rng.randrange(1_000, 9_999) if rng.random() < 0.2 else "administrator",
        "MsgRandom": rng.randrange(2**32),
    }
    if type_ == "Tag":
        content["Condition"] = {"TagsAnd": rng.sample(TAGS, 1 + rng.randrange(2))}
    if type_ == "User":
        content["To_Account"] = [f"user{rng.randrange(100_000)}"]
    content["OfflinePushInfo"] = {"Title": title, "Desc": description}
    return msgspec.Raw(msgspec.json.encode(content))
