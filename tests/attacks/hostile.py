"""What a hostile or broken site sends: mutations of an honest answer, each from a seed.

Left out on purpose is the one thing that no check can find: weights that are wrong and look right.
Against these help rules of aggregation that read single updates, not the wire.
"""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_object import get_object_id
from postbox import Letter, letter

from fedrad.deployment.packed_arrays import pack_arrays
from fedrad.rounds.records import bundle_of, config_of, numbers_of, pack

Mutation = Callable[[Random, Message, RecordDict], list[Letter]]
"""(draws, the question, the honest answer's content) -> what is sent instead."""
MUTATIONS: dict[str, Mutation] = {}
"""Every mutation by its name."""


def mutation(function: Mutation) -> Mutation:
    """Put a mutation into the table."""
    MUTATIONS[function.__name__] = function
    return function


def sent(question: Message, content: RecordDict) -> list[Letter]:
    """An answer with another content, packed as a site packs its own."""
    return [letter(question, pack_arrays(content))]


def with_file(question: Message, content: RecordDict, array: Array) -> list[Letter]:
    """An answer whose file of arrays is another array."""
    told = pack_arrays(content)
    record = ArrayRecord()
    record["file"] = array
    told["safetensors"] = record
    return [letter(question, told)]


def file_of(content: RecordDict) -> bytes:
    """The safetensors file of an answer."""
    return pack_arrays(content)["safetensors"]["file"].tensor.numpy().tobytes()


def as_npy(array: np.ndarray) -> bytes:
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def as_array(raw: bytes) -> Array:
    """Bytes of a safetensors file as Flower's array."""
    return Array(np.frombuffer(raw, np.uint8))


def header(descr: str, shape: object) -> bytes:
    """A .npy file's header, without a byte of content."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def safetensors(head: object, data: bytes = b"") -> bytes:
    """A safetensors file with a head of one's own."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


# ---- arrays: names, shapes, kinds, values


def changed(content: RecordDict, change: Callable[[dict[str, torch.Tensor]], None]) -> RecordDict:
    """An answer whose first state's arrays are changed."""
    bundle = {name: dict(state) for name, state in bundle_of(content).items()}
    change(bundle[min(bundle)])
    return pack(bundle, numbers_of(content), config_of(content))


def one_array(
    turn: Callable[[Random, torch.Tensor], torch.Tensor],
) -> Mutation:
    """A mutation of one array that the seed draws."""

    def play(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
        def change(state: dict[str, torch.Tensor]) -> None:
            name = rng.choice(sorted(state))
            state[name] = turn(rng, state[name].clone())

        return sent(question, changed(content, change))

    return play


def _put(value: float) -> Callable[[Random, torch.Tensor], torch.Tensor]:
    def put(rng: Random, array: torch.Tensor) -> torch.Tensor:
        array.view(-1)[rng.randrange(array.numel())] = value
        return array

    return put


KINDS = (torch.float64, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool,
         torch.bfloat16, torch.int8, torch.complex64)  # fmt: skip
MUTATIONS |= {
    "a_value_is_not_a_number": one_array(_put(float("nan"))),
    "a_value_is_endless": one_array(_put(float("inf"))),
    "a_value_overflows_every_sum": one_array(_put(3e38)),
    "an_array_is_of_another_kind": one_array(lambda rng, a: a.to(rng.choice(KINDS))),
    "an_array_has_one_axis_more": one_array(lambda rng, a: a.unsqueeze(rng.randrange(a.dim() + 1))),
    "an_array_is_flat_and_longer": one_array(
        lambda rng, a: a.reshape(-1).repeat(rng.randrange(2, 50))
    ),
    "an_array_is_empty": one_array(lambda rng, a: torch.empty(0, rng.randrange(9))),
    "an_array_is_a_scalar": one_array(lambda rng, a: torch.tensor(rng.random())),
}


@mutation
def an_array_is_missing(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """One array fewer."""

    def drop(state: dict[str, torch.Tensor]) -> None:
        state.pop(rng.choice(sorted(state)))

    return sent(question, changed(content, drop))


@mutation
def an_array_more(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """An array under a name that nobody asked for."""
    name = rng.choice(["../../etc/passwd", "Erika", "\x1b[2J", "a" * 5000, ".", "num-examples"])
    return sent(question, changed(content, lambda s: s.update({name: torch.zeros(3)})))


@mutation
def an_array_under_anothers_name(rng: Random, question: Message, content: RecordDict) -> list:
    """Two arrays in each other's place."""

    def swap(state: dict[str, torch.Tensor]) -> None:
        by_shape = sorted(state, key=lambda name: (state[name].shape, name))
        one, other = by_shape[0], by_shape[-1 - rng.randrange(1)]
        state[one], state[other] = state[other], state[one]

    return sent(question, changed(content, swap))


@mutation
def a_state_more(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """Another state beside the one asked for."""
    bundle = dict(bundle_of(content))
    bundle[rng.choice(["personal", "counts", "change", "body", "x" * 3000])] = {
        "w": torch.zeros(rng.randrange(1, 9))
    }
    return sent(question, pack(bundle, numbers_of(content), config_of(content)))


@mutation
def no_arrays(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """Numbers alone."""
    return sent(question, pack({}, numbers_of(content), config_of(content)))


# ---- the file of arrays


@mutation
def a_file_cut_short(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """A prefix of the file, also of no byte."""
    raw = file_of(content)
    return with_file(question, content, as_array(raw[: rng.randrange(len(raw))]))


@mutation
def a_file_with_a_damaged_head(rng: Random, question: Message, content: RecordDict) -> list:
    """Some bytes of the head are others; its content is left alone."""
    raw = bytearray(file_of(content))
    length = struct.unpack("<Q", raw[:8])[0]
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(8 + length)
        raw[at] ^= 1 << rng.randrange(8)
    if bytes(raw) == file_of(content):
        raw[8] = 0
    return with_file(question, content, as_array(bytes(raw)))


HEADS = (
    {"model/w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
    {"model/w": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}},
    {"model/w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
    {"model/w": {"dtype": "F999", "shape": [1], "data_offsets": [0, 4]}},
    {"model/w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}},
    {"model/w": {"dtype": "U64", "shape": [0], "data_offsets": [0, 0]}},
    {"model/w": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}},
    {"model/w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
    {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    {"/": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    {"model/w": "F32"}, {"model/w": None}, [], None, 7, {"__metadata__": {"a": "b"}},
    b"{" * 100_000, b"\xff\xfe", b"", b" " * 1000, b"[" * 90_000 + b"]" * 90_000,
)  # fmt: skip


@mutation
def a_file_with_a_head_of_its_own(rng: Random, question: Message, content: RecordDict) -> list:
    """Heads that claim what is not there."""
    raw = safetensors(rng.choice(HEADS), b"\0" * rng.choice([0, 4, 4096]))
    return with_file(question, content, as_array(raw))


@mutation
def a_file_whose_head_is_endless(rng: Random, question: Message, content: RecordDict) -> list:
    """The length of the head alone, and it is up to 2^64."""
    raw = struct.pack("<Q", rng.choice([2**64 - 1, 2**40, 2**31, 100_000_001])) + b"{}"
    return with_file(question, content, as_array(raw))


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("arr_0.npy", as_npy(np.zeros(1_000_000, np.uint8)))
    return file.getvalue()


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, np.zeros(3))
    return file.getvalue()


RAW = (
    lambda rng: b"",
    lambda rng: _zip(),
    lambda rng: _npz(),
    lambda rng: rng.randbytes(rng.randrange(2000)),
    lambda rng: pickle.dumps({"w": [1.0]}),
    lambda rng: b"\x93NUMPY",
    lambda rng: b"\x93NUMPY\x09\x00\x10\x00" + b"(" * 16,
    lambda rng: header("<f4", (2**40,)),
    lambda rng: header("|u1", (2**rng.randrange(33, 62),)),
    lambda rng: header("|u1", (2**62, 2**62)),
    lambda rng: header("|u1", (-5,)),
    lambda rng: header("|u1", (0, 2**62)),
    lambda rng: header("|u1", (1,) * 4000),
    lambda rng: header("|u1", "(" * 900),
    lambda rng: as_npy(np.zeros(8, np.uint8))[: -rng.randrange(1, 8)],
    lambda rng: as_npy(np.zeros(8, np.uint8)) + b"more",
)  # fmt: skip


@mutation
def a_file_of_raw_bytes(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """Bytes that are no .npy file, or none that is whole."""
    raw = rng.choice(RAW)(rng)
    return with_file(question, content, Array("uint8", (len(raw),), "numpy.ndarray", raw))


OTHERS = (
    np.array([1, 2], ">f4"), np.array([1], ">i8"), np.array(["a"]), np.array([b"a"]),
    np.array([1j]), np.array([1], np.longdouble), np.array(["2020"], "datetime64[D]"),
    np.array([1], "timedelta64[s]"), np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]),
    np.array([1], np.uint16), np.array([1], np.uint64), np.zeros((), np.uint8),
    np.zeros((2, 2), np.uint8), np.zeros(0, np.uint8), np.array([1.0]),
)  # fmt: skip


@mutation
def a_file_of_another_kind_of_array(rng: Random, question: Message, content: RecordDict) -> list:
    """Whole .npy files, of everything that NumPy knows."""
    array = rng.choice(OTHERS)
    made = Array(str(array.dtype), array.shape, "numpy.ndarray", as_npy(array))
    return with_file(question, content, made)


@mutation
def a_file_of_objects(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """A .npy file whose content is a pickle: nothing of it is run."""
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    return with_file(question, content, Array("object", (1,), "numpy.ndarray", file.getvalue()))


@mutation
def a_file_of_a_form_that_nobody_knows(rng: Random, question: Message, content: RecordDict) -> list:
    """Another serialisation, which might be pickle."""
    form = rng.choice(["pickle", "torch", "", "numpy.ndarray\x00", "x" * 10_000, "\x1b[31m"])
    raw = as_npy(np.frombuffer(file_of(content), np.uint8))
    return with_file(question, content, Array("uint8", (len(raw),), form, raw))


@mutation
def a_file_beside_its_own_shape(rng: Random, question: Message, content: RecordDict) -> list:
    """Flower's own words about an array are others than its bytes."""
    raw = as_npy(np.frombuffer(file_of(content), np.uint8))
    shape = rng.choice([(2**40,), (), (-1,), (3, 5)])
    kind = rng.choice(["uint8", "float128", "object", "nonsense"])
    return with_file(question, content, Array(kind, shape, "numpy.ndarray", raw))


# ---- Flower's records


def spoilt(question: Message, content: RecordDict, **records: object) -> list[Letter]:
    """An answer with other records, or without them (None)."""
    told = pack_arrays(content)
    for key, record in records.items():
        if record is None:
            del told[key]
        else:
            told[key] = record
    return [letter(question, told)]


@mutation
def a_record_is_missing(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """No arrays, or no numbers."""
    return spoilt(question, content, **{rng.choice(["safetensors", "metrics"]): None})


@mutation
def a_record_more(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """A record that nobody asked for."""
    name = rng.choice(["arrays", "arrays.model", "more", "\x1b]0;", "x" * 4000])
    record = rng.choice([MetricRecord({"n": 1.0}), ConfigRecord({"a": "b"}), ArrayRecord()])
    return spoilt(question, content, **{name: record})


@mutation
def arrays_beside_the_file(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """A second model beside the first."""
    record = ArrayRecord({"w": Array(np.zeros(rng.randrange(1, 9), np.float32))})
    return spoilt(question, content, **{rng.choice(["arrays", "arrays.change", "w"]): record})


@mutation
def a_record_of_another_type(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """Numbers where arrays are due, and the like."""
    name = rng.choice(["safetensors", "metrics", "config"])
    record = rng.choice([MetricRecord({"file": 1.0}), ConfigRecord({"file": b"x"}), ArrayRecord()])
    if isinstance(record, {"metrics": MetricRecord, "config": ConfigRecord}.get(name, ArrayRecord)):
        record = ArrayRecord({"x": Array(np.zeros(2))})
    return spoilt(question, content, **{name: record})


@mutation
def two_files(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """The file of arrays has company in its record."""
    told = pack_arrays(content)
    told["safetensors"]["more"] = Array(np.zeros(3, np.uint8))
    return [letter(question, told)]


@mutation
def a_list_of_numbers(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """A list where one number is due."""
    numbers: dict = dict(numbers_of(content))
    numbers[rng.choice(sorted(numbers))] = [1.0] * rng.randrange(2000)
    return spoilt(question, content, metrics=MetricRecord(numbers))


@mutation
def a_setting_more(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """Settings that nobody asked for, of every type."""
    value = rng.choice(["x", 1, 1.5, b"x" * 1000, True, ["a"], "y" * 2_000_000])
    config = {
        **config_of(content),
        rng.choice(["quorum", "failed", "kinds", "stream-token"]): value,
    }
    return spoilt(question, content, config=ConfigRecord(config))


@mutation
def a_setting_of_another_type(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """The site's name is a number, or a megabyte."""
    value = rng.choice([1, b"nord", ["nord"], "n" * 1_000_000, float("nan")])
    return spoilt(question, content, config=ConfigRecord({"site": value}))


# ---- numbers


def number(value: Callable[[Random, float], float], *names: str) -> Mutation:
    """A mutation of one number."""

    def play(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
        numbers = numbers_of(content)
        name = rng.choice([name for name in names or sorted(numbers) if name in numbers])
        changed = numbers | {name: value(rng, numbers[name])}
        return sent(question, pack(bundle_of(content), changed, config_of(content)))

    return play


MUTATIONS |= {
    "ten_times_the_images": number(lambda rng, n: 10 * n, "num-examples"),
    "far_too_many_images": number(
        lambda rng, n: rng.choice([1e12, 1e15, 1e300, 2.0**62]), "num-examples"
    ),
    "a_few_images_more": number(lambda rng, n: n + rng.randrange(1, 9), "num-examples"),
    "a_part_of_an_image": number(lambda rng, n: n + rng.random() / 2 + 0.1, "num-examples"),
    "a_count_below_zero": number(lambda rng, n: -1 - n * rng.random(), "num-examples", "steps"),
    "other_steps": number(lambda rng, n: n + rng.choice([-1, 1, 1000, 1e9]), "steps"),
    "a_number_that_is_none": number(
        lambda rng, n: rng.choice([float("nan"), float("inf"), float("-inf")])
    ),
    "a_loss_beyond_all_sums": number(lambda rng, n: rng.choice([1e30, -1e30, 1e308]), "loss-sum"),
}


@mutation
def a_number_is_missing(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """One number fewer."""
    numbers = numbers_of(content)
    del numbers[rng.choice(sorted(numbers))]
    return sent(question, pack(bundle_of(content), numbers, config_of(content)))


@mutation
def a_number_more(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """A number that nobody asked for, such as another weight."""
    name = rng.choice(["sites", "dose", "total-weight", "bytes-up", "Erika", "z" * 3000])
    numbers = numbers_of(content) | {name: rng.choice([1.0, 1e12, -3.0])}
    return sent(question, pack(bundle_of(content), numbers, config_of(content)))


# ---- Flower's objects, byte by byte


def objects(question: Message, content: RecordDict) -> Letter:
    """An honest answer, to be spoilt."""
    return letter(question, pack_arrays(content))


def kind_of(part: bytes | None) -> str:
    """Flower's name of an object."""
    return (part or b"").split(b" ", 1)[0].decode(errors="replace")


def remade(one: Letter, kind: str, change: Callable[[bytes], bytes]) -> Letter:
    """An answer in which the objects of a kind have other bytes, under their old names."""
    parts = {
        name: change(part) if part is not None and kind_of(part) == kind else part
        for name, part in one.parts.items()
    }
    return replace(one, parts=parts)


OBJECTS = ("Array", "ArrayRecord", "ArrayChunk", "Message", "MetricRecord", "RecordDict")


@mutation
def an_object_cut_short(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """The first bytes of an object, also none."""
    return [
        remade(
            objects(question, content),
            rng.choice(OBJECTS),
            lambda part: part[: rng.randrange(len(part))],
        )
    ]


@mutation
def an_object_of_noise(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """Any bytes in an object's place."""
    return [
        remade(
            objects(question, content),
            rng.choice(OBJECTS),
            lambda part: rng.randbytes(rng.choice([1, 100, len(part)])),
        )
    ]


@mutation
def an_object_that_says_it_is_another(rng: Random, question: Message, content: RecordDict) -> list:
    """Another class's name before an object's bytes."""
    kind = rng.choice(OBJECTS)
    other = rng.choice([name for name in (*OBJECTS, "Popen", "") if name != kind])
    return [
        remade(
            objects(question, content),
            kind,
            lambda part: other.encode() + part[len(kind) :],
        )
    ]


@mutation
def an_object_is_gone(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """A part that is named, and not there."""
    one = objects(question, content)
    name = rng.choice([name for name in one.parts if name != one.id])
    return [replace(one, parts={key: part for key, part in one.parts.items() if key != name},
                    tree=[key for key in one.tree if key != name])]  # fmt: skip


@mutation
def another_object_in_the_messages_place(
    rng: Random, question: Message, content: RecordDict
) -> list[Letter]:
    """What comes is no message, but a part of one."""
    one = objects(question, content)
    return [replace(one, id=rng.choice([name for name in one.parts if name != one.id]))]


@mutation
def parts_without_end(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """Thousands of parts that belong to nothing."""
    one = objects(question, content)
    more = {f"{n:064x}": b"ArrayChunk  1\x00x" for n in range(rng.randrange(3000, 5000))}
    return [replace(one, parts={**one.parts, **more}, tree=[*one.tree, *more])]


@mutation
def a_part_larger_than_all_that_was_asked_for(
    rng: Random, question: Message, content: RecordDict
) -> list[Letter]:
    """Megabytes that belong to nothing."""
    one = objects(question, content)
    big = {f"{n:064x}": bytes(rng.randrange(2, 5) << 20) for n in range(2)}
    return [replace(one, parts={**one.parts, **big}, tree=[*big, *one.tree])]


@mutation
def an_array_that_names_one_piece_a_million_times(
    rng: Random, question: Message, content: RecordDict
) -> list[Letter]:
    """Two megabytes of numbers that unpack to a terabyte."""
    times = rng.randrange(10_000, 100_000)
    piece = rng.randbytes(64)
    chunk = b"ArrayChunk\x20\x2064\x00" + piece
    name = get_object_id(chunk)
    body = json.dumps(
        {"dtype": "uint8", "shape": [64 * times], "stype": "numpy.ndarray",
         "arraychunk_ids": [0] * times}
    ).encode()  # fmt: skip

    def bomb(part: bytes) -> bytes:
        return b"Array " + name.encode() + f" {len(body)}".encode() + b"\x00" + body

    one = remade(objects(question, content), "Array", bomb)
    return [replace(one, parts={**one.parts, name: chunk}, tree=[name, *one.tree])]


@mutation
def an_array_of_pieces_that_are_not_there(
    rng: Random, question: Message, content: RecordDict
) -> list[Letter]:
    """Numbers of pieces beyond all that came, or below zero."""
    index = rng.choice([1, 99, 2**40, -7, "0", None])

    def other(part: bytes) -> bytes:
        head, _, body = part.partition(b"\x00")
        told = json.loads(body) | {"arraychunk_ids": [0, index]}
        return head + b"\x00" + json.dumps(told).encode()

    return [remade(objects(question, content), "Array", other)]


# ---- errors, and answers that are none

WORDS = (
    "TrainingDivergedError: nord: round 1: no number", "RunError: no space left",
    "SiteFailedError: me", "PolicyError: policy", "x" * 3_000_000,
    "\x1b[2J\x1b[31mall is well\n\nfederation: done",
    "\u202e" * 100 + "liw", "", "KeyError", "fit,nord: a site's name", "\x00\x01\x02",
)  # fmt: skip


@mutation
def an_error_with_words_of_its_own(rng: Random, question: Message, content: RecordDict) -> list:
    """The site says no, at any length and in any letters."""
    code = rng.choice([0, 100, 101, 102, 103, -1, 999, 2**31 - 1])
    return [letter(question, Error(code, rng.choice(WORDS)))]


@mutation
def again_and_again(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """Codes that ask for the question once more, for ever."""
    codes = [
        ErrorCode.NODE_UNAVAILABLE,
        ErrorCode.MESSAGE_UNAVAILABLE,
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
        ErrorCode.CLIENT_APP_CRASHED,
        ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
    ]
    return [letter(question, Error(rng.choice(codes), "x" * rng.randrange(9)))]


@mutation
def parts_that_never_come(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """The head of an answer whose content is promised, and not delivered."""
    one = objects(question, content)
    name = rng.choice(sorted(one.parts))
    return [replace(one, parts={**one.parts, name: None})]


@mutation
def nothing_at_all(rng: Random, question: Message, content: RecordDict) -> list[Letter]:
    """Silence."""
    return []


@mutation
def an_answer_to_another_question(rng: Random, question: Message, content: RecordDict) -> list:
    """The number of a message that was never sent."""
    return [replace(objects(question, content), replies_to=f"{rng.getrandbits(256):064x}")]


@mutation
def the_same_answer_several_times(rng: Random, question: Message, content: RecordDict) -> list:
    """One would have done; the others are not added."""
    return [objects(question, content) for _ in range(rng.randrange(2, 5))]
