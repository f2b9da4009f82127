"""Each site bears its own name."""

import pytest
import torch
from flwr.app import Message
from made import experiment, federation

from fedrad.errors import SiteFailed
from fedrad.federation.describe import description
from fedrad.federation.inprocess import InProcessGrid
from fedrad.federation.records import pack
from fedrad.federation.rollcall import _data


def answer(site: str) -> Message:
    """A site's description of itself."""
    InProcessGrid(None, {})  # type: ignore[arg-type]  # lets messages be made outside a runtime
    question = Message(pack({}, config={"action": "describe"}), 2, "query")
    what = experiment()
    content = description(federation().sites[site], what.task, torch.device("cpu"), digest="00")
    return Message(content, reply_to=question)


def test_a_site_under_anothers_key_is_named_with_both_names() -> None:
    """Two site files with one name, or a kit that was copied, would mix two hospitals up."""
    assert _data("nord", answer("nord"), experiment()).site == "nord"
    with pytest.raises(SiteFailed, match="the key of ost is used by a site that says it is 'nord'"):
        _data("ost", answer("nord"), experiment())
