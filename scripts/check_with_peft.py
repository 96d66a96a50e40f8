"""Compares an exported folder, run by Hugging Face's libraries, with logits that fellrec computed.

    pip install torch==2.11.0 numpy==2.4.6 transformers==5.24.0 peft==0.21.2

    fellrec export RUN --client 0 --format peft --out adapter
    fellrec export RUN --client 0 --format merged --out merged
    fellrec model inspect merged --ids 5,17,23 --json > logits.json

    python scripts/check_with_peft.py adapter/base adapter --ids 5,17,23 --expect logits.json
    python scripts/check_with_peft.py --merged merged --ids 5,17,23 --expect logits.json

Prints the largest difference of the last position's logits; exits 1 above 1e-4.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-4

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("base", nargs="?", help="folder of the base")
parser.add_argument("adapter", nargs="?", help="folder of the adapter")
parser.add_argument("--merged", help="folder of a merged model, instead of the two")
parser.add_argument("--ids", required=True, help="token ids: 1,2,3")
parser.add_argument("--expect", required=True, help="from `fellrec model inspect --ids .. --json`, or a list")
args = parser.parse_args()
if bool(args.merged) == bool(args.adapter):
    parser.error("expected either BASE and ADAPTER or --merged")

model = AutoModelForCausalLM.from_pretrained(args.merged or args.base, dtype=torch.float32)
if args.adapter:
    model = PeftModel.from_pretrained(model, args.adapter)
model.eval()
ids = [int(id) for id in args.ids.split(",")]
with torch.no_grad():
    got = model(input_ids=torch.tensor([ids])).logits[0, -1]
expected = json.loads(Path(args.expect).read_text())
expected = torch.tensor(expected["logits"] if isinstance(expected, dict) else expected)
difference = (got - expected).abs().max().item()
print(f"max abs difference {difference:.2e} over {len(expected)} logits")
# A logit that is no number makes a difference that is none, which is no agreement.
sys.exit(not difference <= TOLERANCE)
