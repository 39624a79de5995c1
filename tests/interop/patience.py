"""How long the dialogues wait, and how they tell what was seen."""
import time

PATIENCE = 15
STARTED = time.monotonic()


def step(text):
    print(f"{time.monotonic() - STARTED:7.2f}  {text}", flush=True)
