from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedrad.data.fingerprint import image_fingerprint
from fedrad.data.reading.decode import decode_image, resized
from fedrad.errors import DataError


def film(h: int = 12, w: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (h, w), dtype=np.uint8)


def read(path: Path, size=(1, 12, 12), bits: int = 16, fit="pad"):
    found = decode_image(path, size, fit=fit, bits=bits)
    return found.image, found.mark


def saved(folder: Path, image: Image.Image, name: str = "a.png") -> Path:
    image.save(folder / name)
    return folder / name


def test_a_grey_png_comes_back_pixel_for_pixel(tmp_path) -> None:
    """At its own size nothing is resampled; the fingerprint is of the file's pixels."""
    pixels, mark = read(saved(tmp_path, Image.fromarray(film())))
    np.testing.assert_array_equal(pixels, film()[None])
    assert mark == image_fingerprint(film())


def test_the_fingerprint_does_not_depend_on_the_tasks_size(tmp_path) -> None:
    """A copy is a copy at every resolution."""
    path = saved(tmp_path, Image.fromarray(film(40, 30)))
    assert read(path)[1] == read(path, size=(1, 7, 7), fit="squeeze")[1]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_every_kind_of_png_becomes_grey(tmp_path, mode) -> None:
    """Grey in colour is the same grey."""
    black_or_white = np.where(film() > 127, 255, 0).astype(np.uint8)
    image = Image.fromarray(black_or_white).convert(mode)
    np.testing.assert_array_equal(read(saved(tmp_path, image))[0], black_or_white[None])


def test_grey_becomes_three_equal_channels_where_the_task_has_three(tmp_path) -> None:
    """For backbones with a colour stem."""
    pixels, _ = read(saved(tmp_path, Image.fromarray(film())), size=(3, 12, 12))
    np.testing.assert_array_equal(pixels, np.stack([film()] * 3))


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_16_bit_png_is_read_by_the_bits_it_uses(tmp_path, bits) -> None:
    """round(v * 255 / (2**bits - 1)): the top value is white, whatever it is."""
    wide = np.linspace(0, 2**bits - 1, 144).astype(np.uint16).reshape(12, 12)
    pixels, _ = read(saved(tmp_path, Image.fromarray(wide)), bits=bits)
    expected = np.round(wide.astype(float) * 255 / (2**bits - 1))
    np.testing.assert_allclose(pixels[0], expected, atol=1)
    assert pixels.max() == 255


def test_a_16_bit_png_with_more_bits_than_said_is_refused(tmp_path) -> None:
    """Clipping would whiten the bones silently."""
    path = saved(tmp_path, Image.fromarray(np.full((4, 4), 5000, np.uint16)))
    with pytest.raises(DataError, match="a pixel is 5000, above 4095; bits: 12 is too few"):
        read(path, bits=12)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_truncated_image_is_an_error_at_every_length(tmp_path, name) -> None:
    """Half a film read as a whole one would be half black."""
    whole = saved(tmp_path, Image.fromarray(film(40, 40)), name).read_bytes()
    # 40: a PNG's last 20 bytes hold no pixel, only checksums and the end's mark.
    for length in (0, 5, 30, len(whole) // 2, len(whole) - 40):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"the image is no whole PNG or JPEG") as e:
            read(tmp_path / name)
        assert name not in str(e.value)


def test_other_formats_are_refused(tmp_path) -> None:
    """Few decoders, few surprises."""
    with pytest.raises(DataError, match="no whole PNG or JPEG"):
        read(saved(tmp_path, Image.fromarray(film()), "a.bmp"))


def test_padding_keeps_the_aspect_ratio_and_centres() -> None:
    """8 x 4 into 8 x 8: two black columns on each side."""
    white = np.full((8, 4), 255, np.uint8)
    out = resized(white, (8, 8), fit="pad")[0]
    assert (out == np.pad(white, ((0, 0), (2, 2)))).all()


def test_cropping_keeps_the_aspect_ratio_and_the_middle() -> None:
    """4 columns of 8 stay: numbers 2 to 5."""
    columns = np.tile(np.arange(8, dtype=np.uint8), (4, 1))
    assert resized(columns, (4, 4), fit="crop")[0, 0].tolist() == [2, 3, 4, 5]
    odd = np.tile(np.arange(7, dtype=np.uint8), (4, 1))
    assert resized(odd, (4, 4), fit="crop")[0, 0].tolist() == [1, 2, 3, 4]


def test_squeezing_fills_the_frame() -> None:
    """No black, no loss at the edges, another shape."""
    out = resized(np.full((8, 4), 200, np.uint8), (6, 6), fit="squeeze")
    assert out.shape == (1, 6, 6) and (out == 200).all()


@pytest.mark.parametrize("fit", ["pad", "crop", "squeeze"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (5, 7), (7, 5, 3)])
def test_any_shape_comes_out_at_the_size_asked_for(fit, shape) -> None:
    """Also a strip one pixel wide."""
    out = resized(np.zeros(shape, np.uint8), (16, 24), fit=fit)
    assert out.shape == (3 if len(shape) == 3 else 1, 16, 24) and out.flags.c_contiguous


def test_getting_smaller_averages() -> None:
    """Without antialiasing a chessboard would become black or white, not grey."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = resized(board, (8, 8), fit="pad")
    assert abs(small.astype(int)[0, 1:-1, 1:-1] - 127).max() < 10
