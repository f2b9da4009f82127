"""A hospital's own process, asked by hand, and every byte that it lets out."""

from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Message, RecordDict

from fedrad.assemble import initial_state
from fedrad.config import Experiment, SiteFile
from fedrad.config.checking import checked
from fedrad.core.state import Bundle
from fedrad.deployment.handshake import version_info
from fedrad.rounds.client_app import client_app
from fedrad.rounds.records import pack
from fedrad.simulation.in_process import InProcessGrid

POLICY: dict[str, Any] = {
    "coordinator": {"host": "localhost", "port": 9092},
    "allow": {
        "algorithms": ["fedavg", "fedprox", "finetune", "float16_updates", "local"],
        "models": ["cnn", "mlp"],
        "actions": ["count", "describe", "finetune", "fit", "share", "test", "tune", "validate"],
    },
    "experiments": "any",
    "min_patients": 5,
    "max_upload_mb": 5,
    "max_norm": None,
}


def in_flowers_runtime() -> None:
    """Let this process make messages, as one of Flower's tasks may."""

    class Nobody:
        def federation(self, experiment: Experiment) -> Any:
            raise AssertionError("nobody is asked")

    InProcessGrid(client_app(Nobody(), torch.device("cpu")), {})


def site_file(folder: Path, **changes: Any) -> SiteFile:
    raw = {"name": "nord", **POLICY, **changes}
    return checked(SiteFile, raw, where="site.yaml").under(folder)


def context(folder: Path) -> Context:
    return Context(1, 2, {"site": "nord", "state-dir": str(folder / "m")}, RecordDict(), {})


def question(
    what: Experiment,
    action: str = "fit",
    *,
    send: Bundle | None = None,
    arm: str = "fedavg",
    number: int = 1,
    **changes: Any,
) -> Message:
    config = {"experiment": what.text(), "action": action, **version_info()}
    if action != "describe":
        config |= {"arm": arm, "seed": 0, "server-round": number, "training-sites": 3}
        send = {"model": initial_state(what.arm(arm), 0)} if send is None else send
    config = {key: value for key, value in (config | changes).items() if value is not None}
    return Message(pack(send or {}, config=config), 2, "train")


def bytes_of(reply: Message) -> bytes:
    """Return all that leaves with a reply: names, arrays, numbers, settings, or the reason."""
    if reply.has_error():
        return (reply.error.reason or "").encode()
    parts: list[bytes] = []
    for name, record in reply.content.items():
        parts.append(name.encode())
        for key, value in record.items():
            parts += [key.encode(), getattr(value, "data", None) or repr(value).encode()]
    return b"\n".join(parts)
