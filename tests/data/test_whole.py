"""An image is read upright, with all its bits, and only where the whole of it is there."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedrad.data.reading.decode import decode_image
from fedrad.errors import DataError

RNG = np.random.default_rng(0)


def read(path: Path, size=(1, 12, 12), bits: int = 16):
    return decode_image(path, size, fit="pad", bits=bits)


def wide_png(pixels: np.ndarray, colour_type: int) -> bytes:
    """A PNG of 16 bits, which Pillow does not write in colour: [h, w, c], PNG 1.2, 4.1."""

    def part(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    h, w = pixels.shape[:2]
    lines = b"".join(b"\x00" + line.astype(">u2").tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", w, h, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(lines))
        + part(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_and_grey_with_alpha_are_scaled_by_bits_as_grey_is(
    tmp_path, colour_type, channels, bits
) -> None:
    """The same grey values in every kind of PNG are the same image."""
    grey = RNG.integers(0, 2**bits, (12, 12), dtype=np.uint16)
    grey[0, 0] = 2**bits - 1
    (tmp_path / "wide.png").write_bytes(wide_png(np.stack([grey] * channels, 2), colour_type))
    Image.fromarray(grey).save(tmp_path / "grey.png")
    found, plain = (read(tmp_path / name, bits=bits) for name in ("wide.png", "grey.png"))
    np.testing.assert_array_equal(found.image, plain.image)
    assert found.image.max() == 255 and found.highest == plain.highest == 2**bits - 1


def test_each_colour_of_16_bits_is_scaled_by_itself(tmp_path) -> None:
    """round(v * 255 / 4095) for red, green and blue."""
    pixels = RNG.integers(0, 4096, (12, 12, 3), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(wide_png(pixels, 2))
    found = read(tmp_path / "a.png", size=(3, 12, 12), bits=12).image
    expected = np.round(pixels * (255 / 4095)).transpose(2, 0, 1)
    np.testing.assert_allclose(found, expected, atol=1)


def test_16_bit_colour_above_bits_is_refused(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(wide_png(np.full((4, 4, 3), 5000), 2))
    with pytest.raises(DataError, match=r"a pixel is 5000, above 4095; bits: 12 is too few"):
        read(tmp_path / "a.png", bits=12)


TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What a camera did to the upright image before it stored it, by Pillow's names."""


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("orientation", TURNS)
def test_all_eight_orientations_of_exif_are_turned_upright(tmp_path, orientation, kind) -> None:
    """Stored turned and marked so, an image is what it was before."""
    fields = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    upright = Image.fromarray(np.kron(fields, np.ones((8, 8), np.uint8)))
    turn = TURNS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind}"
    (upright if turn is None else upright.transpose(turn)).save(path, exif=exif, quality=100)
    found = read(path, size=(1, 24, 32)).image[0].astype(int)
    assert np.abs(found - np.asarray(upright)).max() <= 3


def test_an_orientation_that_means_nothing_leaves_the_image_as_it_is(tmp_path) -> None:
    """0 is "unknown" with some cameras; EXIF has 1 to 8."""
    exif = Image.Exif()
    exif[0x0112] = 0
    film = RNG.integers(0, 256, (12, 12), dtype=np.uint8)
    Image.fromarray(film).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "a.png").image[0], film)


def jpeg(film: np.ndarray, **options) -> bytes:
    held = io.BytesIO()
    Image.fromarray(film).save(held, "JPEG", quality=90, **options)
    return held.getvalue()


FILM = (np.add.outer(np.arange(160), np.arange(200)) * 0.6).astype(np.uint8) // 2 * 2
FILM = FILM + RNG.integers(0, 9, FILM.shape, dtype=np.uint8)
BLACK_BELOW = np.concatenate([FILM[:80], np.zeros_like(FILM[80:])])
KINDS = [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}]


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("film", [FILM, BLACK_BELOW, np.zeros_like(FILM)])
def test_a_whole_jpeg_is_read_also_where_its_lower_half_is_black(tmp_path, film, options) -> None:
    """A black margin costs few bytes, but it costs some."""
    (tmp_path / "a.jpg").write_bytes(jpeg(film, **options))
    found = read(tmp_path / "a.jpg", size=(1, 160, 200)).image[0].astype(int)
    assert np.abs(found - film).mean() < 3


@pytest.mark.parametrize("fill", [0, 1, 2])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
@pytest.mark.parametrize("options", KINDS)
def test_a_jpeg_that_was_cut_and_closed_again_is_refused(tmp_path, options, share, fill) -> None:
    """Pillow reads it without a word; its lower part is grey. Or it is filled with zeros."""
    whole = jpeg(FILM, **options)
    kept = int(len(whole) * share)
    filler = bytes((len(whole) - kept) * fill)
    (tmp_path / "a.jpg").write_bytes(whole[:kept] + filler + b"\xff\xd9")
    with pytest.raises(DataError, match=r"no whole PNG or JPEG file \((its|parts|OSError)") as told:
        read(tmp_path / "a.jpg")
    assert told.value.rule == "image-not-whole"


def test_a_png_with_changed_pixels_is_refused(tmp_path) -> None:
    """Noise is stored as it is, so a changed byte is a changed pixel to the decoder."""
    Image.fromarray(RNG.integers(0, 256, (60, 60), dtype=np.uint8)).save(tmp_path / "a.png")
    raw = bytearray((tmp_path / "a.png").read_bytes())
    raw[2000:2500] = bytes(500)
    (tmp_path / "a.png").write_bytes(raw)
    with pytest.raises(DataError, match=r"no whole PNG or JPEG file"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("start", "what"),
    [(b"", "is empty"), (b"II*\x00", "a TIFF"), (b"\x00" * 128 + b"DICM", "DICOM"),
     (b"<html>", "page of text"), (b"version https://git-lfs", "Git LFS pointer")],
)  # fmt: skip
def test_a_file_that_is_no_image_is_called_what_it_is(tmp_path, start, what) -> None:
    (tmp_path / "a.png").write_bytes(start and start + b" " * 200)
    with pytest.raises(DataError, match=rf"no whole PNG or JPEG file \(it .*{what}"):
        read(tmp_path / "a.png")


def test_a_huge_image_is_not_called_broken(tmp_path, monkeypatch) -> None:
    """Pillow's guard against bombs; the sentence says how large and what to do."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.fromarray(np.zeros((60, 60), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"has 3,600 pixels, .* it may be whole: make it smaller"):
        read(tmp_path / "a.png")
