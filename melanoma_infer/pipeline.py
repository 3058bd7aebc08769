"""The whole flow: slide → tissue → tiles → engine → slide result, for one slide and for many.

One bad slide among many never stops or changes the others: the boundary round a slide, `_scored`, is the only place
that catches everything, and records the slide, the stage and the cause.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from melanoma_infer.accumulator import Accumulator, SlideCase
from melanoma_infer.card import ModelCard
from melanoma_infer.errors import MemoryExhaustedError, MminferError, SlideUnreadableError
from melanoma_infer.parity_table import engine_band
from melanoma_infer.patients import strict_patient
from melanoma_infer.plan import SlidePlan
from melanoma_infer.privacy import DIGEST_CHARS, without_paths
from melanoma_infer.provenance import VERSION, digest_of
from melanoma_infer.reading import ReadPlan, read_plan, read_tile, read_tiles
from melanoma_infer.records import GalleryTile, Identity, ReadTile, Tile
from melanoma_infer.reports.gallery import CHOSEN_MAX, Choice, choose
from melanoma_infer.reports.output import OutputFolder
from melanoma_infer.result import SlideOutcome, SlideResult
from melanoma_infer.session import Scorer
from melanoma_infer.settings import Settings
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.base import Opener
from melanoma_infer.slides.choice import ReaderWish, choose_reader, opener_of
from melanoma_infer.slides.completeness import require_complete
from melanoma_infer.slides.members import identify
from melanoma_infer.slides.retrying import RetryingReader
from melanoma_infer.slides.scale import known_scale
from melanoma_infer.stopwatch import Stopwatch
from melanoma_infer.tiling import place_tiles, tile_geometry
from melanoma_infer.tissue import find_tissue

PROBED = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Which tiles two readers are compared on, as shares of all."""
Progress = Callable[[int, int], None]
"""Called with tiles done and tiles in all."""


@dataclass(frozen=True)
class SlideRequest:
    """One slide to be scored, and what is said of it."""

    path: Path
    case: SlideCase
    settings: Settings
    reader: ReaderWish = "auto"
    """Who decodes the tiles. No number depends on it."""


def score_slide(
    path: str | Path,
    scorer: Scorer,
    *,
    patient: Mapping[str, object] | None = None,
    settings: Settings | None = None,
    reader: ReaderWish = "auto",
    progress: Progress | None = None,
) -> SlideResult:
    """The result of one slide.

    Args:
        path: a slide that OpenSlide reads, or a plain image.
        scorer: a bundle on an engine.
        patient: values for the card's patient fields; what is not given is unknown.
        settings: what differs from the model card.
        reader: who decodes the tiles: "openslide", "tiff", or "auto", the faster one that gives OpenSlide's pixels.
        progress: called after each tile.

    Raises:
        MminferError: see melanoma_infer.errors; a slide without tissue is a result, not an error.
    """
    path = Path(path)
    given = strict_patient(patient, scorer.bundle.card.patient_fields) if patient is not None else None
    request = SlideRequest(path, SlideCase(path.stem, patient=given), settings or Settings(), reader)
    return _score(request, scorer, Stopwatch(), progress=progress)


def _score(
    request: SlideRequest,
    scorer: Scorer,
    watch: Stopwatch,
    *,
    progress: Progress | None = None,
    identity: Identity | None = None,
    settings_digest: str | None = None,
) -> SlideResult:
    """The flow, stage by stage."""
    path, card = request.path, scorer.bundle.card
    plan = plan_slide(path, card, request.settings, reader=request.reader, watch=watch, identity=identity)
    opener = opener_of(plan.facts)
    tiles = Accumulator(
        plan,
        request.case,
        scorer.bundle,
        numerics=scorer.numerics,
        settings=request.settings,
        settings_digest=settings_digest,
    )
    ahead = scorer.engine.tiles_at_once
    reads = read_tiles(path, plan.tiles, plan.reading, threads=scorer.threads, ahead=ahead, opener=opener, watch=watch)
    seen: dict[int, ReadTile] = {}
    if len(plan.tiles) <= CHOSEN_MAX:
        reads = _noted(reads, seen)
    results = scorer.infer_each(watch.waiting("wait", reads))
    for done, result in enumerate(watch.waiting("infer", results), start=1):
        tiles.add(result)
        if progress is not None:
            progress(done, len(plan.tiles))
    if tiles.nothing_was_read:
        raise SlideUnreadableError(
            f"None of the slide's {len(plan.tiles)} tiles can be read: the file is damaged. Copy it again."
        )
    with watch.timing("score"):
        scored = tiles.result()
    with watch.timing("gallery"):
        gallery = _gallery(path, opener, plan, choose(scored.tiles, card), seen)
    timed = scored.model_copy(update={"timings_ms": watch.rounded_ms})
    return timed.carrying(scored.tiles, scored.view, gallery, card=card)


def _noted(reads: Iterator[ReadTile], seen: dict[int, ReadTile]) -> Iterator[ReadTile]:
    for read in reads:
        seen[read.tile.index] = read
        yield read


def _gallery(
    path: Path,
    opener: Opener,
    plan: SlidePlan,
    chosen: list[Choice],
    seen: Mapping[int, ReadTile],
) -> tuple[GalleryTile, ...]:
    """The chosen tiles' pixels, read once more where there were too many tiles to keep."""
    reads = dict(seen)
    missing = [plan.tiles[choice.row] for choice in chosen if choice.row not in reads]
    if missing:
        with RetryingReader(path, opener) as reader:
            reads |= {tile.index: read_tile(reader, tile, plan.reading) for tile in missing}
    pixels = ((choice, reads[choice.row].pixels) for choice in chosen)
    return tuple(GalleryTile(choice.row, choice.role, each) for choice, each in pixels if each is not None)


def plan_slide(
    path: Path,
    card: ModelCard,
    settings: Settings,
    *,
    reader: ReaderWish = "auto",
    watch: Stopwatch | None = None,
    identity: Identity | None = None,
) -> SlidePlan:
    """What will be read of a slide, and by whom: its scale, its tissue and its tiles.

    Raises:
        MminferError: the slide cannot be opened, is incomplete, or has no known scale; a mask does not fit it.
    """
    watch = watch or Stopwatch()
    with watch.timing("open"):
        slide = RetryingReader(path)
    with slide:
        require_complete(path)
        identity = identity or identify(path, slide.facts.quickhash)
        known = known_scale(slide.facts, settings.mpp_um)
        geometry = tile_geometry(card, settings)
        with watch.timing("tissue"):
            tissue = find_tissue(slide, known.scale, settings.tissue)
        tiles = tuple(place_tiles(slide.facts.size_l0, known.scale, tissue, geometry))
        reading = read_plan(slide.facts, known.scale, geometry, card)
    with watch.timing("open"):
        facts = choose_reader(path, slide.facts, reading.level, _probe_points(tiles, reading), reader)
    return SlidePlan(facts, identity, known, tissue, geometry, reading, tiles)


def _probe_points(tiles: Sequence[Tile], reading: ReadPlan) -> Iterator[tuple[int, int]]:
    """(x, y) in level pixels: some tiles' upper left corners, from the first to the last."""
    for row in sorted({round(share * (len(tiles) - 1)) for share in PROBED} if tiles else ()):
        rect_l0 = tiles[row].rect_l0
        yield int(rect_l0.x / reading.downsample), int(rect_l0.y / reading.downsample)


def score_slides(
    requests: Iterable[SlideRequest],
    scorer: Scorer,
    out: OutputFolder,
    *,
    hide_names: bool = False,
    overwrite: bool = False,
    full_digest: bool = False,
    progress: Progress | None = None,
) -> Iterator[SlideOutcome]:
    """Score slides one after the other and write each one's files; a failed slide is an outcome, not an exception.

    Args:
        requests: the slides.
        scorer: a bundle on an engine.
        out: the locked output folder.
        hide_names: digests in place of names.
        overwrite: redo slides that are finished.
        full_digest: identify slides by all their bytes.
        progress: called after each tile.
    """
    for request in requests:
        yield _scored(
            request,
            scorer,
            out,
            hide_names=hide_names,
            overwrite=overwrite,
            full_digest=full_digest,
            progress=progress,
        )


def _scored(
    request: SlideRequest,
    scorer: Scorer,
    out: OutputFolder,
    *,
    hide_names: bool,
    overwrite: bool,
    full_digest: bool,
    progress: Progress | None,
) -> SlideOutcome:
    """The boundary round one slide."""
    watch, started = Stopwatch(), time.perf_counter()
    case = request.case
    try:
        identity = _identity(request.path, full=full_digest)
        if hide_names:
            case = replace(case, id=identity.digest[:DIGEST_CHARS])
        wanted = _settings_digest(request, scorer, identity)
        folder = out.folder_of(case.id, identity.digest)
        finished = None if overwrite else out.finished(folder, identity, wanted)
        if finished is not None:
            return SlideOutcome(
                finished.id, finished.case_id, 0, "finished before", "", 0.0, folder, finished, skipped=True
            )
        named = replace(request, case=case)
        result = _score(named, scorer, watch, progress=progress, identity=identity, settings_digest=wanted)
        with watch.timing("write"):
            out.write(folder, result)
        return SlideOutcome(case.id, case.case_id, 0, "", "", time.perf_counter() - started, folder, result)
    except MminferError as error:
        failure = error
    except MemoryError:
        failure = MemoryExhaustedError("There was not enough memory. Close other programs, or use fewer --threads.")
    except Exception as error:  # noqa: BLE001 - the one boundary: a bug in one slide must not cost the others
        cause = without_paths(f"{type(error).__name__}: {error}", request.path)
        failure = MminferError(f"This is a bug in mminfer, please report it ({cause}).")
    hidden = hide_names and case.id == request.case.id
    return SlideOutcome(
        id="" if hidden else case.id,
        case_id=case.case_id,
        exit_code=failure.exit_code,
        message=str(failure),
        stage=watch.stage,
        seconds=time.perf_counter() - started,
    )


def _identity(path: Path, *, full: bool) -> Identity:
    with open_slide(path) as slide:
        return identify(path, slide.facts.quickhash, full=full)


def _settings_digest(request: SlideRequest, scorer: Scorer, identity: Identity) -> str | None:
    """What a finished result is compared with; None where it would tell patient values that must not be written."""
    case = request.case
    if case.patient is not None and not case.patient_in_output:
        return None
    return digest_of(
        {
            "version": VERSION,
            "bundle": scorer.bundle.digest,
            "numerics": vars(scorer.numerics),
            "engine_band": _engine_band(scorer),
            "settings": request.settings.model_dump(),
            "mask": _mask_digest(request.settings.tissue),
            "patient": vars(case.patient) if case.patient else None,
            "case_id": case.case_id,
            "slide": identity.digest,
        }
    )


def _engine_band(scorer: Scorer) -> float:
    """A part of the verdict that `mminfer verify` may change between two runs."""
    numerics = scorer.numerics
    return engine_band(scorer.bundle, numerics.engine, numerics.precision, numerics.device)


def _mask_digest(tissue: str) -> str | None:
    """The content of a mask given by path: the same path may hold another mask tomorrow."""
    mask = Path(tissue)
    return hashlib.sha256(mask.read_bytes()).hexdigest() if tissue not in ("auto", "all") and mask.is_file() else None
