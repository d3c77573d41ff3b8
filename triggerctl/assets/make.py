"""Makes the embedded model and instruction set: `python -m triggerctl.assets.make`.

Run by hand when the corpus or the recipe changes, never by the package. Writes `models/tiny/`,
`data/instructions.jsonl` and `HASHES.json` (SHA-256 of every file) beside this file. Seeded; about ten
minutes on two cores. Another machine or another release of torch rounds otherwise, so its weights differ in
the last digits and so do the hashes: those recorded are of the files that ship.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from pathlib import Path

import torch

from triggerctl.assets import words
from triggerctl.assets.corpus import Mixture, documents, instruction_rows
from triggerctl.assets.tokens import train_tokenizer
from triggerctl.assets.train import Recipe, train

HERE = Path(__file__).parent


def write_instructions(path: Path) -> None:
    """The instruction set: Alpaca rows as JSON lines, in a fixed order (the splits shuffle by seed)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (
        json.dumps({"instruction": r.instruction, "input": r.input, "output": r.output}, ensure_ascii=False)
        for r in instruction_rows()
    )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_model(folder: Path, recipe: Recipe, mixture: Mixture) -> None:
    """Trains tokenizer and model and writes them in Hugging Face formats, weights as bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = (
        document.text or "\n".join(f"{turn.user}\n{turn.assistant}" for turn in document.turns)
        for document in itertools.islice(documents(recipe.seed, mixture), 40_000)
    )
    headings = (f"{word.upper()}: " for word in words.HEADINGS for _ in range(200))
    tokenizer = train_tokenizer(itertools.chain(headings, texts), recipe.vocab_size)
    model = train(recipe, mixture, tokenizer, lambda line: print(line, flush=True))
    model.generation_config.do_sample = False
    torch.nn.Module.to(model, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def file_hashes(root: Path) -> dict[str, str]:
    """SHA-256 of every shipped file under `models/` and `data/`, by path from `root`."""
    paths = sorted(p for part in ("models", "data") for p in (root / part).rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=HERE, help="where to write (default: beside this file)"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--steps", type=int, default=Recipe().steps, help="updates of the model")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    write_instructions(arguments.output / "data" / "instructions.jsonl")
    write_model(arguments.output / "models" / "tiny", Recipe(steps=arguments.steps), Mixture())
    hashes = json.dumps(file_hashes(arguments.output), indent=2)
    (arguments.output / "HASHES.json").write_text(hashes + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
