"""A simulated scanner: strips of a slide arrive in real time and are scored while the rest is still being scanned.

    python examples/scanner_strip_stream.py SLIDE [--bundle demo] [--tile-um 256] [--rows 512] [--line-hz 20000]
        [--live live.png] [--out RESULTS]

`live.png` is drawn again after every fifth of the scan: open it in a viewer that reloads.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import monotonic, sleep

from melanoma_infer import ScanOptions, Scorer, Settings, SlideResult, open_bundle, open_slide
from melanoma_infer.geometry import RectPx
from melanoma_infer.reports import overlay


def main() -> None:
    """Scan, and print what is known at every fifth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--bundle", default="demo")
    parser.add_argument("--tile-um", type=float)
    parser.add_argument("--rows", type=int, default=512, help="rows in a strip")
    parser.add_argument("--line-hz", type=float, default=20_000, help="rows that the camera takes in a second")
    parser.add_argument("--live", type=Path, help="the picture to draw while the scan goes on")
    parser.add_argument("--out", type=Path, help="the output folder")
    asked = parser.parse_args()

    scorer = Scorer(open_bundle(asked.bundle))
    with open_slide(asked.slide) as slide:
        size, scale = slide.facts.size_l0, slide.facts.scale
        if scale is None:
            raise SystemExit("The slide does not say its scale, and a scanner knows it. Take another slide.")
        scan = scorer.session(
            (scale.x_um, scale.y_um),
            (size.width, size.height),
            settings=Settings(tile_um=asked.tile_um),
            options=ScanOptions(id=asked.slide.stem, is_phantom=slide.facts.is_phantom),
        )
        started, fifths = monotonic(), 1
        with scan:
            for top in range(0, size.height, asked.rows):
                strip = slide.read_rgb(0, RectPx(0, top, size.width, min(asked.rows, size.height - top)))
                if strip is None:
                    continue  # a strip that the camera lost: its tiles will be incomplete
                sleep(max(0.0, started + (top + asked.rows) / asked.line_hz - monotonic()))
                scan.push(strip.pixels, 0, top)
                if (share := scan.progress.scanned_fraction or 0) >= fifths / 5 and share < 1:
                    fifths += 1
                    _tell(scan.running(), share, asked.live)
        result = scan.close(out=asked.out)
    _tell(result, 1.0, asked.live)
    print(f"{monotonic() - started:.1f} s, verdict: {result.verdict}")


def _tell(result: SlideResult, share: float, live: Path | None) -> None:
    """Print a result so far, and draw it."""
    counted, score = result.tiles_counted, result.malignant_score
    shown = "no score yet" if score is None else f"score {score:.3f}"
    left = counted.ok + counted.not_evaluated
    print(f"{share:4.0%} scanned: {shown}, {counted.ok} of {left} tiles, {len(result.regions)} regions", flush=True)
    if live is not None:
        live.write_bytes(overlay.render(result))


if __name__ == "__main__":
    main()
