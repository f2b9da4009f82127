"""A CSV file with a row for each image, and PNG or JPEG files beside it."""

from collections.abc import Sequence
from pathlib import Path

from fedrad.config import Task
from fedrad.data.adapters.image_files import paths_of, stamps_of
from fedrad.data.base import Records
from fedrad.data.cache import Kept, Misfits, decoded, key_of
from fedrad.data.checks.odd_values import unused_bits
from fedrad.data.patients import UNSAID, PatientOption, column_of, patients_of, unnamed
from fedrad.data.reading.columns import (
    CsvTable,
    Word,
    attributes_of,
    read_columns,
    row_sites,
    selected_rows,
    split_of,
)
from fedrad.data.reading.decode import Decoded, Fit, decode_image
from fedrad.data.reading.labels import Value, drop_rows, label_rule, labels_of
from fedrad.errors import ConfigError

__all__ = ["images"]


def images(
    task: Task,
    root: Path,
    *,
    csv: str,
    image: str = "image",
    patient: PatientOption = UNSAID,
    patient_per_site: bool = False,
    label: str | None = None,
    labels: dict[str, str] | list[str] | None = None,
    values: dict[Word, Value] | None = None,
    separator: str | None = None,
    drop: Sequence[Word] = (),
    site: str | None = None,
    sites: list[str] | None = None,
    split: str | None = None,
    where: dict[str, Word | list[Word]] | None = None,
    age: str | None = None,
    sex: str | None = None,
    view: str | None = None,
    fit: Fit = "pad",
    bits: int = 16,
) -> Records:
    """Return images listed in a CSV file; decoded once and kept (see `cache`).

    Args:
        task: its input is [1 or 3, h, w].
        root: the folder that `csv` is under.
        csv: the file; images' paths in it are relative to its folder and stay inside it.
        image: column of the images' paths.
        patient: column of the patients' ids, or where in the image's path they stand (`IdPart`);
            null says that each image is its own patient.
        patient_per_site: ids are each site's own; equal ids at two sites are two patients.
        label: column of the label, for one finding or for classes.
        labels: finding -> column (or a list of columns named as the findings), for several.
        values: label's text -> 0, 1, class name or null (not read); without it cells are 0, 1,
            empty (not read), or a class's name or index.
        separator: a label's cell lists findings with this between them, such as "|" in
            "Effusion|Mass"; a finding that is not listed is 0.
        drop: rows with one of these texts as label are left out.
        site: column of the site.
        sites: keep only these.
        split: column of the split; train, val or test.
        where: column -> the text, or texts, to keep.
        age: column of the age, years or DICOM ("058Y").
        sex: column of the sex.
        view: column of the view.
        fit: how an image comes to the task's shape: pad (with black), squeeze, crop.
        bits: that values of 16-bit PNG files use, grey or colour; often 12.

    Raises:
        ConfigError: options do not fit the task or each other.
        DataError: a file or column is missing, a cell does not fit, an image is damaged.
    """
    size = _size(task)
    if not 1 <= bits <= 16:
        raise ConfigError(f"bits: found {bits}; fits 1 to 16")
    rule = label_rule(
        task, label=label, labels=labels, values=values, drop=drop, separator=separator
    )
    person = column_of(patient, image)
    named = [image, *rule.columns, *(where or ()), person, site, split, age, sex, view]
    table = read_columns(root / csv, named=named, private=[person, image])
    table = selected_rows(table, where=where, site=site, sites=sites)
    table = drop_rows(table, rule)
    y = labels_of(table, rule)
    places = row_sites(table, site)
    splits = split_of(table, split)
    patients = patients_of(table, patient, places, per_site=patient_per_site, image=image)
    attributes = attributes_of(table, age=age, sex=sex, view=view)
    # Last: all that is cheap to refuse has been read before the first image is.
    paths = paths_of(table, image, (root / csv).parent)
    kept = _decoded(table, image, paths, size, fit, bits)
    return Records(
        x=kept.images,
        y=y,
        patient=patients.hashed,
        site=places,
        split=splits,
        pixels=kept.marks,
        attributes=attributes,
        row=table.row,
        alike=patients.alike,
        sketches=kept.sketches,
        oddities=(
            *unnamed(patient, len(y)),
            *unused_bits(kept.highest, places, table.row, bits),
        ),
    )


def _size(task: Task) -> tuple[int, int, int]:
    if len(task.input) != 3 or task.input[0] not in (1, 3):
        raise ConfigError(
            f"task.input: images are [1 or 3, height, width]; found {list(task.input)}"
        )
    channels, height, width = task.input
    return channels, height, width


def _decoded(
    table: CsvTable,
    image: str,
    paths: Sequence[Path],
    size: tuple[int, int, int],
    fit: Fit,
    bits: int,
) -> Kept:
    stamps, changed_ns = stamps_of(table, image, paths)
    # The number: of the rules by which files become pixels.
    key = key_of(["images 2", str(size), fit, str(bits), *stamps])

    def one(row: int) -> Decoded:
        return decode_image(paths[row], size, fit=fit, bits=bits)

    try:
        return decoded(key, (len(paths), *size), one, changed_ns=changed_ns)
    except Misfits as error:
        wrong = [(row, str(one)) for row, one in error.wrong]
        raise table.refusal(wrong, rule=error.wrong[0][1].rule, column=image) from None
