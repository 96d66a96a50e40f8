#!/usr/bin/env python3
"""Loads an exported folder with Hugging Face's own libraries and compares what it answers.

    python scripts/check_with_peft.py BASE ADAPTER --ids 1,2,3 --expect logits.json
    python scripts/check_with_peft.py --merged DIR --ids 1,2,3 --expect logits.json

BASE is a folder with a causal model, ADAPTER one with a LoRA adapter of it, DIR one whose weights have
the adapter merged in. logits.json holds the logits that are expected at the last position: what
`fellrec model inspect DIR --ids 1,2,3 --json` prints, or a list of numbers.

Prints the largest absolute difference; exit status 1 where it is above 1e-4, where a logit is no
number, or where the libraries miss a tensor. All is computed in f32 on the CPU. Needs torch, transformers
and, for adapters, peft. transformers 4 does not read the rotary base of a folder written by 5.
"""

import argparse
import json
import os
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-4


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", metavar="BASE")
    parser.add_argument("adapter", nargs="?", metavar="ADAPTER")
    parser.add_argument("--merged", metavar="DIR")
    parser.add_argument("--ids", required=True)
    parser.add_argument("--expect", required=True, metavar="FILE")
    given = parser.parse_args()
    if (given.merged is None) != (given.adapter is not None) or (given.merged and given.base):
        parser.error("give either BASE and ADAPTER or --merged DIR")
    return given


def load(folder):
    """A model that has every tensor from its folder, and whose folder has no other."""
    model, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[kind]:
            sys.exit(f"{folder}: {kind}: {sorted(found[kind])}")
    return model.float()


def with_adapter(base, folder):
    import peft

    print(f"peft {peft.__version__}")
    # PEFT only warns of tensors it does not find, and goes on with an adapter that does nothing.
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        return peft.PeftModel.from_pretrained(base, folder)


def main():
    given = arguments()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    model = load(given.merged or given.base)
    if given.adapter:
        model = with_adapter(model, given.adapter)
    ids = torch.tensor([[int(number) for number in given.ids.split(",")]])
    with torch.no_grad():
        logits = model.eval()(input_ids=ids).logits[0, -1]

    with open(given.expect, encoding="utf-8") as file:
        expected = json.load(file)
    expected = torch.tensor(expected["logits"] if isinstance(expected, dict) else expected)
    if logits.shape != expected.shape:
        sys.exit(f"{given.expect}: {list(expected.shape)} logits, the model has {list(logits.shape)}")
    difference = (logits - expected).abs().max().item()
    print(f"largest difference of {len(logits)} logits: {difference:.3g}")
    # Not a number is no agreement either.
    sys.exit(0 if difference <= TOLERANCE else 1)


if __name__ == "__main__":
    main()
